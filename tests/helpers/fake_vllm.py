"""A stand-in for the few names of vLLM that the package uses, so that its use is tested where vLLM is not.

Read in the wheel of vLLM 0.24.0 (and the same in 0.28.0):

* `AsyncEngineArgs` has the fields below (`vllm/engine/arg_utils.py`).
* `SamplingParams` has the fields below; any other keyword is a TypeError, `stop` without `detokenize` a
  ValueError (`vllm/sampling_params.py`).
* `AsyncLLM.generate(prompt, sampling_params, request_id, *, ...)` is an asynchronous generator; with
  `RequestOutputKind.FINAL_ONLY` it gives one `RequestOutput` (with CUMULATIVE one for each step, with all tokens so
  far), whose `outputs[0]` has `token_ids`, `logprobs` (one dict of token id -> `Logprob` per token, or None) and
  `finish_reason`, one of stop, length, abort, error, repetition (`vllm/v1/engine/async_llm.py`, `vllm/outputs.py`,
  `vllm/v1/engine/__init__.py`).
* `token_ids` holds every token up to the one that completed a stop string, whatever
  `include_stop_str_in_output` says: `BaseIncrementalDetokenizer.update` appends it before it looks for stop
  strings, which cut `text` only (`vllm/v1/engine/detokenizer.py`). `_until_stopped` does the same.
* `AsyncLLM.from_engine_args(engine_args)`, `.shutdown(timeout=None)`, `.model_config.max_model_len`.
"""

import asyncio
import enum
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

END = 1


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass(kw_only=True)
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = 16
    min_tokens: int = 0
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    logprobs: int | None = None
    seed: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE

    def __post_init__(self) -> None:
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are only supported when detokenize is True")


class TokensPrompt(dict[str, Any]):
    pass


@dataclass(kw_only=True)
class AsyncEngineArgs:
    model: str
    max_num_seqs: int | None = None
    seed: int = 0
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    enable_prefix_caching: bool | None = None
    logprobs_mode: str = "raw_logprobs"
    disable_log_stats: bool = False
    enforce_eager: bool = False
    enable_chunked_prefill: bool | None = None


@dataclass
class FakeVllm:
    """What the stand-in is told to do, and what was done with it."""

    reply: Callable[[list[int], SamplingParams], list[int]] = lambda prompt, params: [7] * 1000
    """The tokens a model would write if nothing stopped it."""
    text: Callable[[list[int]], str] = lambda tokens: ""
    max_model_len: int = 64
    on_cpu: bool = False
    finish_reason: str | None = None
    """Instead of the true one."""
    hangs: bool = False
    fails_to_start: bool = False
    args: list[AsyncEngineArgs] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)
    prompts: list[TokensPrompt] = field(default_factory=list)
    shut_down: int = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "FakeVllm":
        """Make `import vllm` give this."""
        for name, content in {
            "vllm": {
                "AsyncEngineArgs": AsyncEngineArgs,
                "SamplingParams": SamplingParams,
                "TokensPrompt": TokensPrompt,
            },
            "vllm.sampling_params": {"RequestOutputKind": RequestOutputKind},
            "vllm.platforms": {"current_platform": SimpleNamespace(is_cpu=lambda: self.on_cpu)},
            "vllm.v1": {},
            "vllm.v1.engine": {},
            "vllm.v1.engine.async_llm": {"AsyncLLM": self._engine_class()},
        }.items():
            module = ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
        return self

    def _engine_class(self) -> type:
        fake = self

        class AsyncLLM:
            def __init__(self) -> None:
                self.model_config = SimpleNamespace(max_model_len=fake.max_model_len)

            @classmethod
            def from_engine_args(cls, engine_args: AsyncEngineArgs) -> "AsyncLLM":
                if fake.fails_to_start:
                    raise RuntimeError("Engine core initialization failed")
                fake.args.append(engine_args)
                return cls()

            async def generate(
                self, prompt: TokensPrompt, sampling_params: SamplingParams, request_id: str
            ) -> AsyncIterator[Any]:
                fake.prompts.append(prompt)
                fake.params.append(sampling_params)
                await asyncio.sleep(3600 if fake.hangs else 0)
                final = fake.final(prompt["prompt_token_ids"], sampling_params)
                if sampling_params.output_kind is RequestOutputKind.CUMULATIVE:
                    first = SimpleNamespace(token_ids=final.outputs[0].token_ids[:2], finish_reason=None)
                    yield SimpleNamespace(outputs=[first], finished=False)
                yield final

            def shutdown(self, timeout: float | None = None) -> None:
                fake.shut_down += 1

        return AsyncLLM

    def final(self, prompt: list[int], params: SamplingParams) -> Any:
        """The one output of FINAL_ONLY."""
        tokens, reason = self._until_stopped(self.reply(prompt, params), params)
        logprobs = None if params.logprobs is None else [{t: SimpleNamespace(logprob=-0.5)} for t in tokens]
        output = SimpleNamespace(
            token_ids=tokens, logprobs=logprobs, finish_reason=self.finish_reason or reason, text=""
        )
        return SimpleNamespace(outputs=[output], num_cached_tokens=len(prompt) // 2, finished=True)

    def _until_stopped(self, written: list[int], params: SamplingParams) -> tuple[list[int], str]:
        ends = {*(params.stop_token_ids or ()), *(() if params.ignore_eos else (END,))}
        assert params.max_tokens is not None
        for count in range(1, params.max_tokens + 1):
            tokens = written[:count]
            if tokens[-1] in ends or any(s in self.text(tokens) for s in params.stop or ()):
                return tokens, "stop"
        return written[: params.max_tokens], "length"
