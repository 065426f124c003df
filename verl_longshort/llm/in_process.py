"""A Hugging Face model in this process, on the rollout engine."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from verl_longshort.base.errors import UnavailableError
from verl_longshort.core.role_view import Tokenizer, decode_turn
from verl_longshort.core.trajectory import Generate
from verl_longshort.llm.client import ChatSampling, Message, RefusedError, Reply


@dataclass(kw_only=True)
class EngineClient:
    """Asks an engine of this process; the same seed gives the same replies, whatever else is asked."""

    tokenizer: Tokenizer = field(kw_only=False)
    """Its chat template makes the prompt."""
    generate: Generate = field(kw_only=False)
    """The engine's."""
    model: Sequence[Any] | str
    """Names the model in `identity`."""
    concurrency: int
    """Generations under way at once; give what the engine can run."""
    timeout_s: float
    """Seconds that one generation may take."""
    closing: ExitStack = field(default_factory=ExitStack)
    """Closes the engine."""

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(self.concurrency)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model; see `LLMClient`."""
        return {"model": self.model}

    async def ask(self, messages: Sequence[Message], sampling: ChatSampling) -> list[Reply]:
        """See `LLMClient`. Refused is a prompt that does not fit the model's length."""
        prompt = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return await asyncio.gather(
            *(self._sample(prompt, sampling, sampling.seed + k) for k in range(sampling.samples))
        )

    async def aclose(self) -> None:
        """Close the engine."""
        self.closing.close()

    async def _sample(self, prompt: list[int], sampling: ChatSampling, seed: int) -> Reply:
        request = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": seed,
        }
        try:
            async with self._free:
                generating = self.generate(request_id=f"llm-{seed}", prompt_ids=prompt, sampling=request)
                generation = await asyncio.wait_for(generating, self.timeout_s)
        except asyncio.TimeoutError as error:
            remedy = "raise longshort.llm.timeout_s or lower longshort.llm.concurrency"
            raise UnavailableError(f"no reply within {self.timeout_s:g} s; {remedy}") from error
        except ValueError as error:
            raise RefusedError(str(error)) from error
        if generation.finish_reason == "aborted":
            raise UnavailableError("the engine gave up the request; was it closed?")
        text = decode_turn(self.tokenizer, generation.token_ids)
        return Reply(text=text, finish_reason=generation.finish_reason, tokens=len(generation.token_ids))
