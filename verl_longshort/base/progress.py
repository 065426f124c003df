"""How far a stage is: told through a small file, and shown on a terminal.

A stage calls `report` from any of its processes; `LONGSHORT_PROGRESS` names the file. The recipe launcher sets it
and polls the file with `read`. A stage that is run by hand is shown by `shown`, which does both: a bar with the time
left on a terminal, a plain line now and then elsewhere. Without the variable `report` does nothing.
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

VARIABLE = "LONGSHORT_PROGRESS"
POLL_S = 0.5
LINE_S = 10.0


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
def shown(name: str, console: Console | None = None) -> Iterator[None]:
    """Show on stderr how far the stage `name` is while the body runs.

    Does nothing where somebody else shows it: a recipe launcher has set the variable.
    """
    if os.environ.get(VARIABLE):
        yield
        return
    console = console or Console(file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="longshort-progress-") as folder:
        file = Path(folder) / "progress.json"
        os.environ[VARIABLE] = str(file)
        ended = threading.Event()
        show = _show_bar if console.is_terminal else _show_lines
        thread = threading.Thread(target=show, args=(name, file, console, ended), name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            del os.environ[VARIABLE]


def _reports(file: Path, ended: threading.Event) -> Iterator[tuple[Progress, float, float | None]]:
    """The last report every now and then until `ended`, with the seconds passed and left."""
    pace, begin = Pace(), time.monotonic()
    while not ended.wait(POLL_S):
        now, passed = read(file), time.monotonic() - begin
        if now is not None:
            yield now, passed, pace.seconds_left(passed, now.fraction)


def _show_bar(name: str, file: Path, console: Console, ended: threading.Event) -> None:
    columns = (
        *(TextColumn(name), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.description}"),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None, left="")
        for now, _, left in _reports(file, ended):
            about = "" if left is None else f"~{clock(left)} left"
            total = now.total if now.fraction is not None else None
            bars.update(task, total=total, completed=now.done, description=now.message, left=about)


def _show_lines(name: str, file: Path, console: Console, ended: threading.Event) -> None:
    said: Progress | None = None
    last = time.monotonic()
    for now, passed, left in _reports(file, ended):
        if now == said or time.monotonic() - last < LINE_S:
            continue
        said, last = now, time.monotonic()
        share = "" if now.fraction is None else f" {now.fraction:.0%}"
        about = "" if left is None else f", about {clock(left)} left"
        text = f"{name}{share} {now.message}; {clock(passed)} so far{about}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
