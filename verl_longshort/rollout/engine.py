"""Token-in token-out generation with a transformers causal language model, many requests at once.

`TransformersEngine` owns one thread, which runs the model. Its callers are coroutines of any event loop
(`generate`) and threads that control it (`pause`, `abort_all`, `sleep`, `load_weights`, …). Between two
decoding steps the thread takes up what was asked for: control first, then waiting requests. Nothing here
knows verl.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from verl_longshort.errors import UserError
from verl_longshort.rollout.batch import Batch, Row
from verl_longshort.rollout.sampling import SamplingParams
from verl_longshort.rollout.stopping import Decoder, StopStrings
from verl_longshort.rollout.weights import load_weights
from verl_longshort.trajectory import Generation

_CONTROL_TIMEOUT_S = 1800.0  # a control call waits at most for one batch to finish
_ATTENTION = ("sdpa", "eager")


@dataclass(kw_only=True)
class _Command:
    """Work for the engine's thread that is not generation."""

    run: Callable[[], Any]
    when_idle: bool
    done: "Future[Any]"


class TransformersEngine:
    """Continuous batching over one model. Close it, or use it as a context manager.

    The KV cache of a finished request is kept, so that a request whose prompt goes on from those tokens (the
    next turn of a trajectory) computes its new tokens only.

    Args:
        model: a causal language model with full attention in every layer; put in eval mode. Its device and
            dtype are the engine's.
        tokenizer: for stop strings.
        max_num_seqs: rows that run at once; further requests wait.
        eos_token_ids: tokens that end a generation unless `ignore_eos` is asked for.
        seed: of requests that bring no seed of their own; their draws depend on the order of arrival.
        max_model_len: prompt and generated tokens at most; None: `max_position_embeddings` of the model.
        kept_tokens: tokens of finished requests whose KV cache is kept; 0: none.

    Raises UserError for a model that it cannot run.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Decoder,
        *,
        max_num_seqs: int,
        eos_token_ids: Iterable[int],
        seed: int = 0,
        max_model_len: int | None = None,
        kept_tokens: int = 65_536,
    ) -> None:
        _check_model(model)
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._capacity = max_num_seqs
        self._eos = frozenset(eos_token_ids)
        self._seed = seed
        self.max_model_len = max_model_len or model.config.get_text_config().max_position_embeddings
        self._stop_strings: dict[tuple[str, ...], StopStrings] = {}
        self._batch = Batch(model, kept_tokens=kept_tokens, finish=_finish)
        self._changed = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._commands: deque[_Command] = deque()
        self._requests = 0
        self._busy_s = 0.0
        self._paused = self._asleep = self._closed = self._cancelled = False
        self._thread = threading.Thread(target=self._serve, name="transformers-engine", daemon=True)
        self._thread.start()

    def __enter__(self) -> "TransformersEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def generate(
        self, *, request_id: str, prompt_ids: Sequence[int], sampling: Mapping[str, Any]
    ) -> Generation:
        """Generate from token ids; waits while the engine is full, paused or asleep.

        Args:
            request_id: names the request in `abort_all`; need not be unique.
            sampling: vLLM's names, see `SamplingParams`.

        Returns:
            The generated tokens, stop token included. `extra["reused_tokens"]`: how many tokens of the prompt
            were found in the kept KV cache. `finish_reason` "aborted" comes with the tokens so far.

        Raises ValueError for bad sampling keys or a request that does not fit the model's length, and
        whatever the model raises. When the awaiting task is cancelled, the request leaves the batch.
        """
        row = self._row(request_id, list(prompt_ids), SamplingParams.parse(sampling))
        with self._changed:
            self._check_open()
            self._requests += 1
            if row.params.seed is None:
                row.seed = (self._seed << 64) + self._requests
            row.future.add_done_callback(self._note_cancel)
            self._waiting.append(row)
            self._changed.notify_all()
        return await asyncio.wrap_future(row.future)

    def pause(self) -> None:
        """Let new requests wait; running ones go on."""
        self._set(_paused=True)

    def resume(self) -> None:
        """Serve waiting requests again."""
        self._set(_paused=False)

    def abort_all(self) -> list[str]:
        """End all running and waiting requests with what they have; their request ids."""
        return self._command(self._abort)

    def sleep(self) -> None:
        """Finish what runs, give the cache's memory back and let requests wait until `wake`."""
        self._set(_asleep=True)
        self._command(self._batch.free, when_idle=True)

    def wake(self) -> None:
        """Serve again after `sleep`."""
        self._set(_asleep=False)

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
        """Replace weights once nothing runs, and drop every kept KV cache; returns the names.

        Raises KeyError or ValueError naming a tensor that the model does not have or has in another shape.
        """
        named = list(named_tensors)

        def load() -> list[str]:
            self._batch.prefixes.clear()
            return load_weights(self._model, named)

        return self._command(load, when_idle=True)

    def clear_kv_cache(self) -> None:
        """Forget the KV caches kept of finished requests."""
        self._command(self._batch.prefixes.clear)

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the start, and what is running, waiting and kept now."""
        return {
            **asdict(self._batch.counters),
            "requests": self._requests,
            "busy_s": self._busy_s,
            "running": len(self._batch.rows),
            "waiting": len(self._waiting),
            "kept_tokens": self._batch.prefixes.tokens,
        }

    def close(self) -> None:
        """Fail what runs and waits with RuntimeError and end the thread. May be called again."""
        self._set(_closed=True)
        self._thread.join(_CONTROL_TIMEOUT_S)

    # ---------------------------------------------------------------- callers' side

    def _row(self, request_id: str, prompt: list[int], params: SamplingParams) -> Row:
        room = self.max_model_len - len(prompt)
        if not prompt:
            raise ValueError(f"request {request_id}: prompt_ids is empty; give at least one token")
        if (params.max_tokens or 1) > room:
            raise ValueError(
                f"request {request_id}: {len(prompt)} prompt tokens and max_tokens {params.max_tokens} "
                f"exceed the model's length of {self.max_model_len}; shorten the prompt or lower max_tokens"
            )
        return Row(
            request_id=request_id,
            prompt=prompt,
            params=params,
            seed=params.seed or 0,
            max_tokens=params.max_tokens or room,
            stop_ids=params.stop_token_ids | (frozenset() if params.ignore_eos else self._eos),
            stop_strings=self._stops(params.stop),
        )

    def _stops(self, strings: tuple[str, ...]) -> StopStrings:
        if strings not in self._stop_strings:
            self._stop_strings[strings] = StopStrings(self._tokenizer, strings)
        return self._stop_strings[strings]

    def _check_open(self) -> None:
        if self._closed or not self._thread.is_alive():
            raise RuntimeError("the engine is closed; make a new one")

    def _set(self, **flags: bool) -> None:
        with self._changed:
            self.__dict__.update(flags)
            self._changed.notify_all()

    def _note_cancel(self, future: "Future[Generation]") -> None:
        if future.cancelled():
            self._set(_cancelled=True)

    def _command(self, run: Callable[[], Any], *, when_idle: bool = False) -> Any:
        command = _Command(run=run, when_idle=when_idle, done=Future())
        with self._changed:
            self._check_open()
            self._commands.append(command)
            self._changed.notify_all()
        return command.done.result(_CONTROL_TIMEOUT_S)

    # ---------------------------------------------------------------- the engine's thread

    def _serve(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(self._has_work)
                    if self._closed:
                        return
                    command = self._due_command()
                    joiners = [] if command else self._admitted()
                if command:
                    _run(command)
                else:
                    self._advance(joiners)
        finally:
            self._fail_everything()

    def _has_work(self) -> bool:
        return bool(
            self._closed or self._cancelled or self._batch.rows or self._commands or self._room_for_waiting()
        )

    def _due_command(self) -> _Command | None:
        if self._commands and not (self._commands[0].when_idle and self._batch.rows):
            return self._commands.popleft()
        return None

    def _room_for_waiting(self) -> int:
        # a command that waits for the batch to finish must not wait for ever
        blocked = self._paused or self._asleep or self._commands
        return 0 if blocked else min(len(self._waiting), self._capacity - len(self._batch.rows))

    def _admitted(self) -> list[Row]:
        return [self._waiting.popleft() for _ in range(self._room_for_waiting())]

    def _advance(self, joiners: list[Row]) -> None:
        started = time.perf_counter()
        with torch.inference_mode():
            if self._cancelled:
                self._drop_cancelled()
            joiners = [row for row in joiners if not row.future.cancelled()]
            if joiners:
                self._guarded(lambda: self._batch.join(joiners), joiners)
            if self._batch.rows:
                self._guarded(self._batch.step, self._batch.rows)
        self._busy_s += time.perf_counter() - started

    def _guarded(self, work: Callable[[], None], concerned: Sequence[Row]) -> None:
        """Run model work; if it raises, the requests concerned fail with what it raised."""
        try:
            work()
        except Exception as error:
            # once they are in the batch, rows share one forward pass: none of them has a next token
            inside = any(row in self._batch.rows for row in concerned)
            for row in [*concerned, *(self._batch.rows if inside else [])]:
                _fail(row.future, error)
            if inside:
                self._batch.free()

    def _drop_cancelled(self) -> None:
        self._cancelled = False
        gone = [i for i, row in enumerate(self._batch.rows) if row.future.cancelled()]
        self._batch.leave(gone)

    def _abort(self) -> list[str]:
        with self._changed:
            waiting = list(self._waiting)
            self._waiting.clear()
        running = list(self._batch.rows)
        with torch.inference_mode():
            self._batch.leave(range(len(running)))
        for row in (*running, *waiting):
            _finish(row, "aborted")
        return [row.request_id for row in (*running, *waiting)]

    def _fail_everything(self) -> None:
        error = RuntimeError("the engine was closed while this waited; make a new one")
        with self._changed:
            self._closed = True
            for row in (*self._batch.rows, *self._waiting):
                _fail(row.future, error)
            for command in self._commands:
                _fail(command.done, error)
        self._batch.free()


def _check_model(model: PreTrainedModel) -> None:
    attention = model.config._attn_implementation
    if attention not in _ATTENTION:
        remedy = f"this engine makes its own attention masks; load the model with {' or '.join(_ATTENTION)}"
        raise UserError("attn_implementation", attention, remedy)


def _finish(row: Row, reason: str) -> None:
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
