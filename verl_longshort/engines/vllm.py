"""The engine `vllm`: what it can do, how a command opens one, and its sampling keys. Imports no vLLM.

Three things need care in sampling. vLLM counts a seeded request's random numbers from 0 (V1 model runner), so two
turns of one trajectory with one seed would get the same numbers: hence `turn_seed`. By default it looks for stop
strings in text without special tokens: `for_request` turns that off, so that both engines of this package stop at the
same token. Token ids always include the whole token that completes a stop string, even if its text continues after
the string; `include_stop_str_in_output` changes the text alone.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from verl_longshort.base.seeds import derived_seed
from verl_longshort.engines.spec import Engine, EngineOptions, EngineSpec

if TYPE_CHECKING:
    from verl_longshort.engines.sampling import SamplingParams

_SEED_BITS = 62  # vLLM keeps seeds as signed 64-bit numbers
LOGPROBS_MODE = "processed_logprobs"
"""log_softmax(logits / T); with top_k or top_p, renormalised over what these leave."""


def turn_seed(seed: int, prompt_tokens: int) -> int:
    """The seed of a turn that begins after `prompt_tokens` tokens; 0 or more and below 2^62."""
    return derived_seed(seed, str(prompt_tokens), bits=_SEED_BITS)


def for_request(sampling: Mapping[str, Any], prompt_tokens: int) -> dict[str, Any]:
    """`sampling` with what a request of a trajectory needs of vLLM; other keys stay as they are."""
    keys = {**sampling, "skip_special_tokens": False}
    if keys.get("seed") is not None:
        keys["seed"] = turn_seed(keys["seed"], prompt_tokens)
    return keys


def arguments(params: "SamplingParams", *, prompt_tokens: int, max_tokens: int) -> dict[str, Any]:
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


def _open(options: EngineOptions) -> AbstractContextManager[Engine]:
    from verl_longshort.engines.vllm_engine import VllmEngine

    return VllmEngine(
        options.path,
        max_num_seqs=options.max_num_seqs,
        seed=options.seed,
        tensor_parallel_size=options.tensor_parallel_size,
        gpu_memory_utilization=options.gpu_memory_utilization,
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
    reserves_memory=True,
    fast=True,
    adapt_sampling=for_request,
)
