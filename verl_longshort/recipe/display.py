"""How far a recipe is: a live table on a terminal, a line now and then elsewhere.

`seconds_left` estimates the time a stage still takes; `Display` shows all stages with it.
"""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from verl_longshort.base.progress import clock
from verl_longshort.recipe.stage_process import StageProcess, Status

LINE_SECONDS = 10.0
_SIGNS = {
    Status.WAITING: ("·", "dim"),
    Status.RUNNING: ("▶", "cyan"),
    Status.DONE: ("✓", "green"),
    Status.FAILED: ("✗", "red"),
}

Groups = Sequence[Sequence[StageProcess]]


def pace(groups: Groups) -> float:
    """This machine's time over the recipe's expected time, from the stages that have ended. 1 before that."""
    done = [run for group in groups for run in group if run.status is Status.DONE]
    expected = sum(run.stage.minutes * 60 for run in done)
    return sum(run.seconds for run in done) / expected if expected > 0 else 1.0


def seconds_left(run: StageProcess, pace: float) -> float:
    """Time the stage still takes: from its own progress once it reports some, else from the recipe's figure."""
    if run.status in (Status.DONE, Status.FAILED):
        return 0.0
    if run.seconds_left is not None:
        return run.seconds_left
    return max(run.stage.minutes * 60 * pace - run.seconds, 0.0)


def recipe_seconds_left(groups: Groups) -> float:
    """Time the whole recipe still takes; the stages of a group count as the slowest of them."""
    rate = pace(groups)
    return sum(max(seconds_left(run, rate) for run in group) for group in groups)


class Display:
    """A context that shows the stages while `update` is called every now and then."""

    def __init__(self, groups: Groups, console: Console) -> None:
        self._groups = groups
        self._runs = [run for group in groups for run in group]
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._begin = time.monotonic()
        self._last_line = self._begin
        self._shown = {run.stage.name: run.status for run in self._runs}

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self.update()
            self._live.stop()

    def update(self) -> None:
        """Show what has changed."""
        if self._live:
            self._live.update(self._table(), refresh=True)
            return
        for run in self._runs:
            if self._shown[run.stage.name] is not run.status:
                self._shown[run.stage.name] = run.status
                took = f" in {clock(run.seconds)}" if run.status is Status.DONE else ""
                why = f": {run.failure}" if run.status is Status.FAILED else ""
                self._say(f"{run.stage.name} {run.status}{took}{why}")
        if time.monotonic() - self._last_line >= LINE_SECONDS:
            running = [run for run in self._runs if run.status is Status.RUNNING]
            self._say(" | ".join(_line(run) for run in running) + f"; {self._summary()}")

    def _say(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _summary(self) -> str:
        passed = clock(time.monotonic() - self._begin)
        return f"{passed} so far, about {clock(recipe_seconds_left(self._groups))} left"

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        rate = pace(self._groups)
        for run in self._runs:
            table.add_row(*_row(run, rate))
        table.add_row("", Text("all", style="bold"), "", "", "", "", Text(self._summary(), style="bold"))
        return table


def _row(run: StageProcess, rate: float) -> list[Text | ProgressBar]:
    sign, style = _SIGNS[run.status]
    fraction = run.fraction
    left = seconds_left(run, rate)
    unknown = run.status is Status.RUNNING and fraction is None
    return [
        Text(sign, style=style),
        Text(run.stage.name, style=style),
        ProgressBar(total=1.0, completed=fraction or 0.0, width=24, pulse=unknown),
        Text("" if fraction is None else f"{fraction:4.0%}", justify="right"),
        Text(clock(run.seconds) if run.seconds else "", style="dim"),
        Text(f"~{clock(left)}" if left else "", style="dim"),
        Text(_note(run), style="dim", overflow="ellipsis", no_wrap=True),
    ]


def _note(run: StageProcess) -> str:
    if run.status is Status.FAILED:
        return run.failure
    if run.done_before:
        return "done before"
    return run.progress.message if run.progress else ""


def _line(run: StageProcess) -> str:
    share = "" if run.fraction is None else f" {run.fraction:.0%}"
    return f"{run.stage.name}{share} {_note(run)}".strip()
