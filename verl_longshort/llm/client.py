"""The interface of every language model that a data stage asks, and its errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Message = Mapping[str, str]
"""`{"role": "system" | "user" | "assistant", "content": str}`."""


@dataclass(frozen=True, kw_only=True)
class ChatSampling:
    """How replies are sampled."""

    max_tokens: int
    """Generated tokens of one reply at most."""
    temperature: float = 1.0
    """0: the most likely reply."""
    top_p: float = 1.0
    samples: int = 1
    """Replies to the same messages."""
    seed: int = 0
    """Of the first sample; sample k has `seed + k`. An endpoint may ignore it."""

    def __post_init__(self) -> None:
        for key, holds, remedy in (
            ("max_tokens", self.max_tokens >= 1, "give at least 1"),
            ("temperature", self.temperature >= 0, "give 0 for greedy or a positive number"),
            ("top_p", 0 < self.top_p <= 1, "give a number above 0 and up to 1"),
            ("samples", self.samples >= 1, "give at least 1"),
            ("seed", self.seed >= 0, "give 0 or more"),
        ):
            if not holds:
                raise ValueError(f"{key} is {getattr(self, key)!r}: {remedy}")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A model's answer."""

    text: str
    finish_reason: str
    """"stop": complete; "length": truncated at `max_tokens`; "content_filter"; an endpoint may have others."""
    tokens: int | None
    """Generated tokens, or None when the endpoint does not say (it counts all samples together)."""
    reasoning: str = ""
    """The model's reasoning, where an endpoint returns it separately."""

    @property
    def complete(self) -> bool:
        """Whether the model itself ended the reply."""
        return self.finish_reason not in ("length", "content_filter")


class LLMClient(Protocol):
    """A language model that can be asked many things at once."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What replies depend on besides messages and sampling, as JSON values: the model and where it is."""
        ...

    async def ask(self, messages: Sequence[Message], sampling: ChatSampling) -> list[Reply]:
        """`sampling.samples` replies to a chat. Waits while as many requests as allowed are under way.

        Raises:
            RefusedError: this request can never be answered, others can.
            UnavailableError: the model gives no answers, in spite of all attempts.
        """
        ...

    async def aclose(self) -> None:
        """Give back connections or memory."""
        ...


class RefusedError(Exception):
    """One request cannot be answered (too long for the model, not allowed by the server)."""
