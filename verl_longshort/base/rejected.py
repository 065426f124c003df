"""Records that a stage leaves out: why, and running work on many records of which some are rejected."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from verl_longshort.base.concurrency import run_bounded
from verl_longshort.base.progress import report


class HasId(Protocol):
    """A record with an id."""

    @property
    def id(self) -> str: ...


Record = TypeVar("Record", bound=HasId)
Result = TypeVar("Result")


class RejectedError(Exception):
    """A record is left out. `reason` is one of few, to be counted; `detail` says more about this record."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A record that is left out, by its id."""

    id: str
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.id}: {self.reason}, {self.detail}"

    @classmethod
    def by(cls, error: RejectedError, record_id: str) -> "Rejected":
        """The record `record_id`, left out for what `error` says."""
        return cls(id=record_id, reason=error.reason, detail=error.detail)

    def to_record(self) -> dict[str, str]:
        """As it stands in the file of what was left out."""
        return vars(self).copy()


async def work_on_all(
    records: Sequence[Record], work: Callable[[Record], Coroutine[Any, Any, Result]], *, doing: str
) -> tuple[list[Result], list[Rejected]]:
    """Run `work` on all records at once: its results and what was rejected, each in the order of the records.

    What `work` waits for limits how many run. A RejectedError leaves its record out; any other error ends
    everything and passes through. Progress is reported as `doing`.
    """
    outcomes: dict[int, Result | Rejected] = {}

    async def one(numbered: tuple[int, Record]) -> None:
        number, record = numbered
        try:
            outcomes[number] = await work(record)
        except RejectedError as error:
            outcomes[number] = Rejected.by(error, record.id)

    def keep(_: None) -> None:
        report(len(outcomes), len(records), f"{doing}: {len(outcomes)}/{len(records)} records")

    await run_bounded(list(enumerate(records)), one, keep)
    ordered = [outcomes[number] for number in range(len(records))]
    done = [outcome for outcome in ordered if not isinstance(outcome, Rejected)]
    return done, [outcome for outcome in ordered if isinstance(outcome, Rejected)]
