"""The engine `vllm`: vLLM in this process, what it can do, and its sampling keys.

vLLM's asynchronous engine belongs to one event loop, and callers come with loops of their own, one after the
other: so `VllmEngine` has a thread with a loop, and coroutines of any loop call `generate`. vLLM computes in
processes that it starts itself. Nothing of vLLM, nor torch, is imported before an engine is made.

Three things need care in sampling. vLLM counts a seeded request's random numbers from 0 (V1 model runner), so two
turns of one trajectory with one seed would get the same numbers: hence `turn_seed`. By default it looks for stop
strings in text without special tokens: `for_request` turns that off, so that both engines of this package stop at the
same token. Token ids always include the whole token that completes a stop string, even if its text continues after
the string; `include_stop_str_in_output` changes the text alone.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Any

from verl_longshort.base.seeds import derived_seed
from verl_longshort.core.trajectory import Generation
from verl_longshort.engines.sampling_params import SamplingParams, tokens_allowed
from verl_longshort.engines.spec import EngineOptions, EngineSpec

_SEED_BITS = 62  # vLLM keeps seeds as signed 64-bit numbers
_FINISH_REASONS = {"stop": "stop", "length": "length", "abort": "aborted"}
_ENVIRONMENT = {
    # a forked child would inherit this process's threads and its CUDA state
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # an evaluation sends no usage statistics
    "VLLM_NO_USAGE_STATS": "1",
}
ON_CPU: Mapping[str, Any] = {
    # When a prompt is computed in several parts, vLLM rewinds a seeded request's generator, which torch cannot on a
    # CPU, and the engine dies ("CPU Generator does not use offset"). Without seeds, no run could be repeated.
    "enable_chunked_prefill": False,
}
"""Engine arguments that vLLM's build for CPUs needs."""
_STOP_S = 60  # seconds that vLLM's processes may take to end
_SEEDS = 2**32  # vLLM seeds NumPy, which takes no more


def turn_seed(seed: int, prompt_tokens: int) -> int:
    """The seed of a turn that begins after `prompt_tokens` tokens; 0 or more and below 2^62."""
    return derived_seed(seed, str(prompt_tokens), bits=_SEED_BITS)


def for_request(sampling: Mapping[str, Any], prompt_tokens: int) -> dict[str, Any]:
    """`sampling` with what a request of a trajectory needs of vLLM; other keys stay as they are."""
    keys = {**sampling, "skip_special_tokens": False}
    if keys.get("seed") is not None:
        keys["seed"] = turn_seed(keys["seed"], prompt_tokens)
    return keys


def arguments(params: SamplingParams, *, prompt_tokens: int, max_tokens: int) -> dict[str, Any]:
    """Keyword arguments of vLLM's `SamplingParams`, all but `output_kind`."""
    given = {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "max_tokens": max_tokens,
        "min_tokens": params.min_tokens,
        "stop": list(params.stop),
        "stop_token_ids": sorted(params.stop_token_ids),
        "ignore_eos": params.ignore_eos,
        "logprobs": 0 if params.logprobs else None,
        "seed": params.seed,
        # text is needed for stop strings only
        "detokenize": bool(params.stop),
    }
    return for_request(given, prompt_tokens)


class VllmEngine(AbstractContextManager["VllmEngine"]):
    """One model on vLLM. Close it, or use it as a context manager.

    Prompts that begin alike share their KV cache in blocks (vLLM's prefix caching): the next turn of a
    trajectory, and rollouts from prefixes of one text. What is sampled is a function of the seed as far as the model's
    arithmetic does not depend on what else is in the batch; `VLLM_BATCH_INVARIANT=1` makes vLLM see to that.

    Args:
        path: a Hugging Face folder or name.
        max_num_seqs: requests that run at once; further ones wait.
        seed: of requests that bring no seed of their own.
        tensor_parallel_size: GPUs of the one model.
        gpu_memory_utilization: share of each GPU's memory, weights included.
        options: further fields of vLLM's `AsyncEngineArgs`.
    """

    def __init__(
        self,
        path: str,
        *,
        max_num_seqs: int,
        seed: int = 0,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm-engine", daemon=True)
        self._thread.start()
        given = {
            "model": path,
            "max_num_seqs": max_num_seqs,
            "seed": seed % _SEEDS,
            "tensor_parallel_size": tensor_parallel_size,
            "gpu_memory_utilization": gpu_memory_utilization,
            "enable_prefix_caching": True,
            # log_softmax(logits / T); with top_k or top_p, renormalised over what these leave
            "logprobs_mode": "processed_logprobs",
            "disable_log_stats": True,
            **(options or {}),
        }
        try:
            # vLLM itself gives up on an engine that does not get ready (VLLM_ENGINE_READY_TIMEOUT_S)
            self._llm = asyncio.run_coroutine_threadsafe(_start(given), self._loop).result()
        except BaseException:
            self._stop_loop()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer at most."""
        return int(self._llm.model_config.max_model_len)

    async def generate(self, *, request_id: str, prompt_ids: Sequence[int], sampling: Mapping[str, Any]) -> Generation:
        """Generate from token ids; see `TransformersEngine.generate`, whose keys and errors these are.

        Log-probs are those of the distribution that was sampled from: after top_k and top_p, renormalised.
        """
        return await self._ask(request_id, prompt_ids, sampling, None)

    async def stream(
        self,
        *,
        request_id: str,
        prompt_ids: Sequence[int],
        sampling: Mapping[str, Any],
        on_piece: Callable[[Sequence[int]], None],
    ) -> Generation:
        """Like `generate`, and gives the tokens of each step to `on_piece`."""
        loop = asyncio.get_running_loop()
        return await self._ask(
            request_id, prompt_ids, sampling, lambda tokens: loop.call_soon_threadsafe(on_piece, tokens)
        )

    async def _ask(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        sampling: Mapping[str, Any],
        on_piece: Callable[[Sequence[int]], object] | None,
    ) -> Generation:
        prompt = list(prompt_ids)
        params = SamplingParams.parse(sampling)
        # vLLM itself would silently truncate an answer
        allowed = tokens_allowed(params, len(prompt), self.max_model_len, request_id=request_id)
        if self._closed:
            raise RuntimeError(f"request {request_id}: the engine is closed")
        keys = arguments(params, prompt_tokens=len(prompt), max_tokens=allowed)
        work = asyncio.run_coroutine_threadsafe(self._generate(request_id, prompt, keys, on_piece), self._loop)
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Fail what runs and end vLLM's processes. May be called again."""
        if self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result(_STOP_S)
        self._stop_loop()

    async def _generate(
        self,
        request_id: str,
        prompt: list[int],
        keys: dict[str, Any],
        on_piece: Callable[[Sequence[int]], object] | None,
    ) -> Generation:
        from vllm import SamplingParams as VllmSamplingParams
        from vllm import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        kind = RequestOutputKind.FINAL_ONLY if on_piece is None else RequestOutputKind.CUMULATIVE
        params = VllmSamplingParams(**keys, output_kind=kind)
        final: Any = None
        given = 0
        try:
            async for output in self._llm.generate(TokensPrompt(prompt_token_ids=prompt), params, request_id):
                final = output
                if on_piece is not None and output.outputs:
                    tokens = list(output.outputs[0].token_ids[given:])
                    given += len(tokens)
                    on_piece(tokens)
        except asyncio.CancelledError:
            if self._closed:
                raise RuntimeError(f"request {request_id}: the engine was closed") from None
            raise
        return _generation(request_id, final)

    async def _shut_down(self) -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.to_thread(self._llm.shutdown)

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)
        self._loop.close()


async def _start(given: Mapping[str, Any]) -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    needed = ON_CPU if current_platform.is_cpu() else {}
    return AsyncLLM.from_engine_args(AsyncEngineArgs(**{**needed, **given}))


def _generation(request_id: str, final: Any) -> Generation:
    if final is None or not final.outputs:
        return Generation(token_ids=[], logprobs=None, finish_reason="aborted")
    (output,) = final.outputs
    if output.finish_reason not in _FINISH_REASONS:
        raise RuntimeError(f"request {request_id}: vLLM ended it with {output.finish_reason!r}")
    ids = list(output.token_ids)
    chosen = output.logprobs
    return Generation(
        token_ids=ids,
        logprobs=None if chosen is None else [chosen[place][token].logprob for place, token in enumerate(ids)],
        finish_reason=_FINISH_REASONS[output.finish_reason],
        extra={"reused_tokens": final.num_cached_tokens or 0},
    )


def _open(options: EngineOptions) -> VllmEngine:
    return VllmEngine(
        options.path,
        max_num_seqs=options.max_num_seqs,
        seed=options.seed,
        tensor_parallel_size=options.tensor_parallel_size,
        gpu_memory_utilization=options.gpu_memory_utilization,
        options={"trust_remote_code": True} if options.trust_remote_code else None,
    )


VLLM = EngineSpec(
    name="vllm",
    title="vLLM",
    package="vllm",
    install="pip install 'verl-longshort[gpu]'",
    open=_open,
    needs_gpu=True,
    # vLLM's CPU build
    runs_without_gpu=lambda: "cpu" in version("vllm"),
    spreads=True,
    takes_adapters=True,
    reserves_memory=True,
    fast=True,
    adapt_sampling=for_request,
)
