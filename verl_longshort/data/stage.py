"""What the data stages share: work on all records at once, progress, setting aside what cannot be done."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from verl_longshort.config.compose import compose_config
from verl_longshort.base.files import Record
from verl_longshort.llm.asking import NoReplyError
from verl_longshort.base.progress import report

Result = TypeVar("Result")


class SetAsideError(Exception):
    """A record is left out. `reason` is one of few, to be counted; `detail` says more about this record."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A record that is left out, by its id."""

    id: str
    reason: str
    detail: str

    def to_record(self) -> Record:
        """As it stands in the file of what was left out."""
        return vars(self).copy()


def stage_block(config_name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The `longshort` block of a stage's config as plain containers. Raises UserError."""
    block = OmegaConf.to_container(compose_config(config_name, overrides).longshort, resolve=True)
    assert isinstance(block, dict)
    return {str(key): value for key, value in block.items()}


async def work_on_all(
    records: Sequence[Record], work: Callable[[Record], Awaitable[Result]], *, doing: str
) -> tuple[list[Result], list[SetAside]]:
    """Run `work` on all records: its results and what was set aside, each in the order of the records.

    All run at once: what `work` waits for limits how many. A SetAsideError or NoReplyError leaves its record
    out; any other error ends everything and passes through.
    """

    async def one(record: Record) -> Result | SetAside:
        try:
            return await work(record)
        except SetAsideError as error:
            return SetAside(id=record["id"], reason=error.reason, detail=error.detail)
        except NoReplyError as error:
            return SetAside(id=record["id"], reason="no reply that can be used", detail=str(error))

    tasks = [asyncio.create_task(one(record)) for record in records]
    try:
        await _watch(tasks, doing)
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
    outcomes = [task.result() for task in tasks]
    done = [outcome for outcome in outcomes if not isinstance(outcome, SetAside)]
    return done, [outcome for outcome in outcomes if isinstance(outcome, SetAside)]


async def _watch(tasks: Sequence["asyncio.Task[Any]"], doing: str) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        bar = bars.add_task(doing, total=len(tasks))
        for done, finished in enumerate(asyncio.as_completed(tasks), start=1):
            await finished
            bars.update(bar, completed=done)
            report(done, len(tasks), f"{doing}: {done}/{len(tasks)} records")


def beside(path: Path, suffix: str) -> Path:
    """The path of a file that belongs to `path`, such as `thoughts.rejects.jsonl` to `thoughts.jsonl`."""
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.{suffix}.jsonl")


def summary_table(title: str, rows: Mapping[str, object]) -> Table:
    """Names and numbers for a terminal."""
    table = Table("", title, box=SIMPLE_HEAD)
    table.columns[1].justify = "right"
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table
