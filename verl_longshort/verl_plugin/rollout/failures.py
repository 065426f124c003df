"""A trajectory that fails, as the agent loop tells it to the trainer.

An exception would reach verl's worker, which logs a traceback for every trajectory and tells the trainer nothing but
that some trajectory of the group failed. So a session that fails returns no row and leaves a note with the reason in a
partition of TransferQueue, where the replay buffer finds it (`trainer/replay.py`).
"""

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import transfer_queue as tq
from longshort_reward.compat import StrEnum
from longshort_reward.errors import UserError
from ray.exceptions import RayActorError, RayTaskError

PARTITION = "failed"
"""Of the notes; their keys are `{uid}_{session}`."""

_VERL_LOGGER = "verl.trainer.ppo.v1.agent_loop_tq"
_logged: set[str] = set()


class FailureKind(StrEnum):
    """What failed; part of a metric's name."""

    PROMPT = "prompt"
    """The problem's prompt is too long."""
    ENGINE = "engine"
    """An engine did not generate."""
    GRADER = "grader"
    """The answer could not be graded."""
    OTHER = "other"


class TrajectoryError(Exception):
    """A trajectory failed at a known place; its cause is the error that was raised there."""

    def __init__(self, kind: FailureKind) -> None:
        super().__init__(kind)
        self.kind = kind


@contextmanager
def failing_as(kind: FailureKind) -> Iterator[None]:
    """Name what fails within."""
    try:
        yield
    except Exception as error:
        raise TrajectoryError(kind) from error


async def note_failure(error: Exception, sample: Mapping[str, Any]) -> None:
    """Tell the trainer that the session of the data row `sample` failed, and log the first traceback of a kind."""
    kind = error.kind if isinstance(error, TrajectoryError) else FailureKind.OTHER
    cause = root_cause(error.__cause__ if isinstance(error, TrajectoryError) and error.__cause__ else error)
    lost_actor = isinstance(cause, RayActorError)
    if kind not in _logged and not lost_actor:
        # the trainer tells of it on the console; this is for the log
        _logged.add(kind)
        traceback.print_exception(error)
    # verl would log a line for every session without a row
    logging.getLogger(_VERL_LOGGER).addFilter(_says_more_than_no_row)
    tag = {"kind": kind.value, "reason": reason_of(cause), "lost_actor": lost_actor}
    await tq.async_kv_put(key=f"{sample['uid']}_{sample['session_id']}", partition_id=PARTITION, tag=tag)


def reason_of(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def root_cause(error: BaseException) -> BaseException:
    """The exception that a task raised, below all tasks that waited for it."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error


def _says_more_than_no_row(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Empty output for prompt")
