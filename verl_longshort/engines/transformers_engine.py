"""Token-in token-out generation with a transformers causal language model, many requests at once.

`TransformersEngine` is what callers see: coroutines of any event loop call `generate`, threads that control
the engine call the rest. The work is done by one thread (`scheduler.py`) over the running rows (`batch.py`),
their keys and values (`kv_cache.py`), `sampling.py` and `stopping.py`. Nothing of it knows verl.
"""

import asyncio
import copy
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import Any

from longshort_reward.errors import UserError
from torch import Tensor
from transformers import PreTrainedModel

from verl_longshort.core.trajectory import Generation
from verl_longshort.engines.attention import choose_attention
from verl_longshort.engines.batch import BatchRow
from verl_longshort.engines.kv_cache import Prefixes, SharedPrefixes
from verl_longshort.engines.sampling_params import SamplingParams, tokens_allowed
from verl_longshort.engines.scheduler import Scheduler
from verl_longshort.engines.stopping import Decoder, StopStrings
from verl_longshort.engines.weights import checksum, load_weights

KEPT_TOKENS = 65_536
# Seconds between two looks at what streaming requests have generated, often enough to read along, and for how many
# streams they are added once more, so that telling of them keeps nobody from generating.
_STREAM_S = 0.05
_STREAMS = 12


class TransformersEngine(AbstractContextManager["TransformersEngine"]):
    """Continuous batching over one model. Close it, or use it as a context manager.

    The KV cache of a finished request is kept, so that a request whose prompt continues those tokens (the
    next turn of a trajectory) computes its new tokens only.

    Args:
        model: a causal language model with full attention in every layer; put in eval mode, and on a CPU given
            `attention.GROUPED` in place of sdpa. Its device and dtype are the engine's.
        tokenizer: for stop strings.
        max_num_seqs: rows that run at once; further requests wait.
        eos_token_ids: tokens that end a generation unless `ignore_eos` is asked for.
        seed: of requests that bring no seed of their own; what they sample depends on the order of arrival.
        max_model_len: prompt and generated tokens at most; None: `max_position_embeddings` of the model.
        kept_tokens: tokens of finished requests whose KV cache is kept; 0: none.
        shared_prefixes: for requests that branch, such as rollouts from every prefix of one text: any
            beginning of an earlier prompt is found, by any number of requests; generated tokens are not kept.

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
        kept_tokens: int = KEPT_TOKENS,
        shared_prefixes: bool = False,
    ) -> None:
        choose_attention(model)
        positions = max_model_len or getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if positions is None:
            raise UserError("max_model_len", None, f"{model.config.model_type} does not tell its length; give one")
        self.max_model_len = int(positions)
        self._model = model.eval()
        # the thread decodes while callers encode, which one fast tokenizer does not bear ("Already borrowed")
        self._tokenizer = copy.deepcopy(tokenizer)
        self._device = model.device
        self._eos = frozenset(eos_token_ids)
        self._seeds = itertools.count(seed << 64)
        self._stop_strings = cache(partial(StopStrings, self._tokenizer))
        prefixes = SharedPrefixes(kept_tokens) if shared_prefixes else Prefixes(kept_tokens)
        self._streaming: set[BatchRow] = set()
        self._scheduler = Scheduler(self._model, max_num_seqs=max_num_seqs, prefixes=prefixes)

    def __exit__(self, *_: object) -> None:
        self.close()

    async def generate(self, *, request_id: str, prompt_ids: Sequence[int], sampling: Mapping[str, Any]) -> Generation:
        """Generate from token ids; waits while the engine is full, paused or asleep.

        Args:
            request_id: names the request in errors and in `abort_all`; need not be unique.
            sampling: vLLM's names, see `SamplingParams`.

        Returns:
            The generated tokens, stop token included. `extra["reused_tokens"]`: how many tokens of the prompt
            were found in the kept KV cache. `finish_reason` "aborted" comes with the tokens so far.

        Raises ValueError for bad sampling keys or a request that does not fit the model's length, and
        whatever the model raises. When the awaiting task is cancelled, the request leaves the batch.
        """
        row = self._row(request_id, list(prompt_ids), SamplingParams.parse(sampling))
        self._scheduler.submit(row)
        return await asyncio.wrap_future(row.future)

    async def stream(
        self,
        *,
        request_id: str,
        prompt_ids: Sequence[int],
        sampling: Mapping[str, Any],
        on_piece: Callable[[Sequence[int]], None],
    ) -> Generation:
        """Like `generate`, and gives new tokens to `on_piece` meanwhile, those of several steps together if they are
        quick, or if there are many streams.
        """
        row = self._row(request_id, list(prompt_ids), SamplingParams.parse(sampling))
        loop, given = asyncio.get_running_loop(), 0
        timer = loop.call_at(self._next_look(loop.time()), lambda: look())

        def give() -> None:
            nonlocal given
            if new := row.output[given:]:
                given += len(new)
                on_piece(new)

        def look() -> None:
            nonlocal timer
            timer = loop.call_at(self._next_look(loop.time()), look)
            give()

        self._streaming.add(row)
        try:
            self._scheduler.submit(row)
            made = await asyncio.wrap_future(row.future)
        finally:
            self._streaming.discard(row)
            timer.cancel()
        give()
        return made

    def pause(self) -> None:
        """Let new requests wait; running ones continue."""
        self._scheduler.hold(paused=True)

    def resume(self) -> None:
        """Serve waiting requests again."""
        self._scheduler.hold(paused=False)

    def abort_all(self) -> list[str]:
        """End all running and waiting requests with what they have; their request ids."""
        return self._scheduler.abort_all()

    def sleep(self) -> None:
        """Finish what runs, give memory back and let requests wait until `wake`.

        The cache is freed; the weights of a model on an accelerator go to the CPU.
        """

        def free() -> None:
            self._scheduler.batch.free()
            if self._device.type != "cpu":
                self._model.to("cpu")

        self._scheduler.hold(asleep=True)
        self._scheduler.command(free, when_idle=True)

    def wake(self) -> None:
        """Serve again after `sleep`."""
        self._scheduler.command(lambda: self._model.to(self._device))
        self._scheduler.hold(asleep=False)

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
        """Replace weights once nothing runs, and drop every kept KV cache; returns the names.

        Raises KeyError or ValueError naming a tensor that the model does not have or has in another shape.
        """
        named = list(named_tensors)

        def load() -> list[str]:
            self._scheduler.batch.prefixes.clear()
            return load_weights(self._model, named)

        return self._scheduler.command(load, when_idle=True)

    def clear_kv_cache(self) -> None:
        """Forget the KV caches kept of finished requests."""
        self._scheduler.command(self._scheduler.batch.prefixes.clear)

    def weights_checksum(self) -> str:
        """SHA-256 over all weights in the order of their names, in hexadecimal digits; waits until idle."""
        return self._scheduler.command(lambda: checksum(self._model), when_idle=True)

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the start, and what runs, waits and is kept now."""
        return self._scheduler.stats

    def close(self) -> None:
        """Fail what runs and waits with RuntimeError and end the thread. May be called again."""
        self._scheduler.close()

    def _row(self, request_id: str, prompt: list[int], params: SamplingParams) -> BatchRow:
        allowed = tokens_allowed(params, len(prompt), self.max_model_len, request_id=request_id)
        return BatchRow(
            request_id=request_id,
            prompt=prompt,
            params=params,
            seed=next(self._seeds) if params.seed is None else params.seed,
            max_tokens=allowed,
            stop_ids=params.stop_token_ids | (frozenset() if params.ignore_eos else self._eos),
            stop_strings=self._stop_strings(params.stop),
        )

    def _next_look(self, now: float) -> float:
        """When a loop looks at its streaming requests again: at all of them, so that it wakes once and not for each."""
        every = _STREAM_S * (1 + len(self._streaming) // _STREAMS)
        return (now // every + 1) * every
