"""The thread that runs the model, and what it is asked to do.

Between two decoding steps the thread takes up one command, or else admits waiting requests as far as there
is room. Commands come from other threads and wait for their result; requests come with a future.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from verl_longshort.core.trajectory import Generation
from verl_longshort.engines.batch import Batch, BatchRow
from verl_longshort.engines.kv_cache import Prefixes

_COMMAND_TIMEOUT_S = 1800.0  # a command waits at most for the rows that are running

T = TypeVar("T")


@dataclass(kw_only=True)
class _Command:
    run: Callable[[], Any]
    when_idle: bool
    done: "Future[Any]"


class Scheduler:
    """Feeds a `Batch` from a queue of rows, on a thread of its own, `max_num_seqs` rows at a time."""

    def __init__(self, model: PreTrainedModel, *, max_num_seqs: int, prefixes: Prefixes) -> None:
        self.batch = Batch(model, prefixes=prefixes, finish=_finish)
        self._capacity = max_num_seqs
        self._changed = threading.Condition()
        self._waiting: deque[BatchRow] = deque()
        self._commands: deque[_Command] = deque()
        self._busy_s = 0.0
        self._paused = self._asleep = self._closed = self._cancelled = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._serve, name="transformers-engine", daemon=True)
        self._thread.start()

    def submit(self, row: BatchRow) -> None:
        """Queue a request. Raises RuntimeError when closed."""
        row.future.add_done_callback(self._note_cancel)
        with self._changed:
            self._check_open()
            self._waiting.append(row)
            self._changed.notify_all()

    def hold(self, *, paused: bool | None = None, asleep: bool | None = None) -> None:
        """Let requests wait while either holds; None leaves it as it is."""
        with self._changed:
            self._paused = self._paused if paused is None else paused
            self._asleep = self._asleep if asleep is None else asleep
            self._changed.notify_all()

    def command(self, run: Callable[[], T], *, when_idle: bool = False) -> T:
        """Run something on the thread and return its result, or raise what it raised.

        `when_idle`: once no row runs; requests that arrive meanwhile wait.
        """
        done: Future[T] = Future()
        with self._changed:
            self._check_open()
            self._commands.append(_Command(run=run, when_idle=when_idle, done=done))
            self._changed.notify_all()
        return done.result(_COMMAND_TIMEOUT_S)

    def abort_all(self) -> list[str]:
        """End all running and waiting rows with what they have; their request ids."""
        return self.command(self._abort)

    def close(self) -> None:
        """Fail what runs and waits with RuntimeError and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(_COMMAND_TIMEOUT_S)

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the start, and what runs, waits and is kept now."""
        return {
            **asdict(self.batch.counters),
            "busy_s": self._busy_s,
            "running": len(self.batch.rows),
            "waiting": len(self._waiting),
            "kept_tokens": self.batch.prefixes.tokens,
        }

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed; make a new one") from self._error

    def _note_cancel(self, future: "Future[Generation]") -> None:
        if future.cancelled():
            with self._changed:
                self._cancelled = True
                self._changed.notify_all()

    # ---------------------------------------------------------------- on the thread

    def _serve(self) -> None:
        try:
            while self._turn():
                pass
        except Exception as error:
            self._error = error
            raise
        finally:
            self._fail_everything()

    def _turn(self) -> bool:
        """Wait for work and do some of it; False when closed."""
        with self._changed:
            self._changed.wait_for(self._has_work)
            if self._closed:
                return False
            command = None
            if self._commands and not (self._commands[0].when_idle and self.batch.rows):
                command = self._commands.popleft()
            joiners = [] if command else [self._waiting.popleft() for _ in range(self._room())]
        if command:
            _run(command)
        else:
            self._advance(joiners)
        return True

    def _has_work(self) -> bool:
        return bool(self._closed or self._cancelled or self.batch.rows or self._commands or self._room())

    def _room(self) -> int:
        """How many waiting rows may start now."""
        # a command that waits for the rows to finish must not wait for ever
        if self._paused or self._asleep or self._commands:
            return 0
        return min(len(self._waiting), self._capacity - len(self.batch.rows))

    def _advance(self, joiners: list[BatchRow]) -> None:
        started = time.perf_counter()
        with torch.inference_mode():
            if self._cancelled:
                self._cancelled = False
                self.batch.leave([i for i, row in enumerate(self.batch.rows) if row.future.cancelled()])
            joiners = [row for row in joiners if not row.future.cancelled()]
            if joiners:
                self._guarded(lambda: self.batch.join(joiners), joiners)
            if self.batch.rows:
                self._guarded(self.batch.step, self.batch.rows)
        self._busy_s += time.perf_counter() - started

    def _guarded(self, work: Callable[[], None], concerned: Sequence[BatchRow]) -> None:
        """Run model work; if it raises, the requests concerned fail with what it raised."""
        try:
            work()
        except Exception as error:
            # once in the batch, rows share one forward pass: none of them has a next token
            inside = any(row in self.batch.rows for row in concerned)
            for row in [*concerned, *(self.batch.rows if inside else [])]:
                _fail(row.future, error)
            if inside:
                self.batch.free()

    def _abort(self) -> list[str]:
        with self._changed:
            rows = [*self.batch.rows, *self._waiting]
            self._waiting.clear()
        with torch.inference_mode():
            self.batch.leave(range(len(self.batch.rows)))
        for row in rows:
            _finish(row, "aborted")
        return [row.request_id for row in rows]

    def _fail_everything(self) -> None:
        error = self._error or RuntimeError("the engine was closed while this waited; make a new one")
        with self._changed:
            self._closed = True
            for future in [row.future for row in (*self.batch.rows, *self._waiting)]:
                _fail(future, error)
            for command in self._commands:
                _fail(command.done, error)
        self.batch.free()


def _finish(row: BatchRow, reason: str) -> None:
    if row.future.set_running_or_notify_cancel():
        row.future.set_result(row.generation(reason))


def _fail(future: "Future[Any]", error: Exception) -> None:
    if not future.done() and future.set_running_or_notify_cancel():
        future.set_exception(error)


def _run(command: _Command) -> None:
    if not command.done.set_running_or_notify_cancel():
        return
    try:
        command.done.set_result(command.run())
    except Exception as error:
        command.done.set_exception(error)
