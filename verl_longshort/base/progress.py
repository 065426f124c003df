"""How far a stage is: told through a small file, and shown on a terminal.

A stage calls `report` from any of its processes; `LONGSHORT_PROGRESS` names the file. The recipe launcher sets it
and polls the file with `read`. A stage that is run by hand is shown by `shown`, which does both: a bar with the time
left on a terminal, a plain line now and then elsewhere. Without the variable `report` does nothing. What a stage says
besides (`base/console.py`) is shown above the bar, or between the lines.
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from verl_longshort.base.console import SaidLines

VARIABLE = "LONGSHORT_PROGRESS"
POLL_S = 0.5
LINE_S = 10.0
SAYING_LINE_S = 60.0
"""The same for a stage that says things: a line of progress only after it has been silent for so long."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`done` of `total` units of work (steps, records ...) and a short message."""

    done: float
    total: float
    message: str = ""

    @property
    def fraction(self) -> float | None:
        """Share of the work done, 0 to 1; None when the total is not known."""
        return min(self.done / self.total, 1.0) if self.total > 0 else None


class Pace:
    """The time left at the pace since the first report: starting up is no work."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None

    def seconds_left(self, seconds: float, fraction: float | None) -> float | None:
        """Time left after `seconds`, with `fraction` of the work done; None before there are two reports."""
        if fraction is None:
            return None
        if self._first is None:
            self._first = (seconds, fraction)
        done = fraction - self._first[1]
        return (seconds - self._first[0]) / done * (1 - fraction) if done > 0 else None


def report(done: float, total: float, message: str = "") -> None:
    """Tell how far this stage is. Written to a new file and renamed, so a reader never sees half of it."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    temporary = f"{path}.{os.getpid()}.tmp"
    text = json.dumps(asdict(Progress(done=done, total=total, message=message)))
    # No such folder: this is another node of the run, or the one who looked has left.
    with suppress(FileNotFoundError):
        Path(temporary).write_text(text, encoding="utf-8")
        os.replace(temporary, path)


def read(path: Path) -> Progress | None:
    """The last report in `path`, or None when nothing has been reported yet."""
    try:
        return Progress(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def clock(seconds: float) -> str:
    """`83.4` as `01:23`, with hours when there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


@contextmanager
def shown(name: str, console: Console | None = None, *, said: Path | None = None) -> Iterator[None]:
    """Show how far the stage `name` is while the body runs, on stderr or `console`.

    Lines that are appended to the file `said` are shown as well. The progress is not where somebody else shows it:
    a recipe launcher has set the variable.
    """
    elsewhere = bool(os.environ.get(VARIABLE))
    if elsewhere and said is None:
        yield
        return
    console = console or Console(file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="longshort-progress-") as folder:
        file = Path(folder) / "progress.json"
        if not elsewhere:
            os.environ[VARIABLE] = str(file)
        # where a launcher shows the progress, `file` stays empty
        show = _show_bar if console.is_terminal and not elsewhere else _show_lines
        ended = threading.Event()
        given = (name, file, SaidLines(said) if said else None, console, ended)
        thread = threading.Thread(target=show, args=given, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            if not elsewhere:
                del os.environ[VARIABLE]


def _reports(
    file: Path, said: SaidLines | None, ended: threading.Event
) -> Iterator[tuple[list[str], Progress | None, float, float | None]]:
    """What was said since the last look, and the last report with the seconds passed and left, until `ended`."""
    pace, begin, last = Pace(), time.monotonic(), False
    while not last:
        last = ended.wait(POLL_S)
        now, passed = read(file), time.monotonic() - begin
        yield said.new() if said else [], now, passed, pace.seconds_left(passed, now.fraction) if now else None


def _show_bar(name: str, file: Path, said: SaidLines | None, console: Console, ended: threading.Event) -> None:
    columns = (
        *(TextColumn(name), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.description}"),
    )
    # where the console is captured, what Python's streams get belongs in the log
    above = said is None
    with Bars(*columns, console=console, transient=True, redirect_stdout=above, redirect_stderr=above) as bars:
        task = bars.add_task("", total=None, left="")
        for lines, now, _, left in _reports(file, said, ended):
            _print(console, lines)
            if now is not None:
                about = "" if left is None else f"~{clock(left)} left"
                total = now.total if now.fraction is not None else None
                bars.update(task, total=total, completed=now.done, description=now.message, left=about)


def _show_lines(name: str, file: Path, said: SaidLines | None, console: Console, ended: threading.Event) -> None:
    shown: Progress | None = None
    last, every = time.monotonic(), SAYING_LINE_S if said else LINE_S
    for lines, now, passed, left in _reports(file, said, ended):
        _print(console, lines)
        if lines:
            last = time.monotonic()
        if now is None or now == shown or ended.is_set() or time.monotonic() - last < every:
            continue
        shown, last = now, time.monotonic()
        share = "" if now.fraction is None else f" {now.fraction:.0%}"
        about = "" if left is None else f", about {clock(left)} left"
        _print(console, [f"{name}{share} {now.message}; {clock(passed)} so far{about}"])


def _print(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
