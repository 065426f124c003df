"""What a request asks of sampling; names and meanings are vLLM's. Light: no torch.

* `SamplingParams`: the sampling keys of one request, checked.
* `tokens_allowed`: how long its answer may be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

_NEUTRAL = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "min_p": 0.0, "n": 1}
"""Keys that are accepted as long as they ask for nothing."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """The sampling keys of one request."""

    temperature: float = 1.0
    """Logits are divided by it; 0: the most likely token."""
    top_p: float = 1.0
    """Smallest set of tokens with this much probability; applied after top_k."""
    top_k: int = -1
    """This many most likely tokens; -1 or 0: all."""
    max_tokens: int | None = None
    """Generated tokens at most; None: as many as the model has room for."""
    min_tokens: int = 0
    """Generated tokens before any stop condition is looked at."""
    stop: tuple[str, ...] = ()
    """Generation ends with the token that completes one of them in the generated text."""
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    logprobs: bool = False
    """Whether the chosen tokens' log-probs are wanted."""
    seed: int | None = None
    """Makes what is sampled a function of seed and token positions, whatever else is in the batch."""

    @classmethod
    def parse(cls, sampling: Mapping[str, Any]) -> "SamplingParams":
        """Check a mapping of vLLM's names. Raises ValueError naming a key that is unknown or out of range."""
        given = dict(sampling)
        for key, neutral in _NEUTRAL.items():
            if given.pop(key, neutral) != neutral:
                raise _invalid(key, sampling[key], f"not supported; leave it out or give {neutral}")
        if "max_new_tokens" in given:
            given.setdefault("max_tokens", given.pop("max_new_tokens"))
        known = [field.name for field in fields(cls)]
        for key in given:
            if key not in known:
                raise _invalid(key, given[key], f"unknown sampling key; known: {', '.join(known)}")
        stop, logprobs = given.get("stop") or (), given.get("logprobs")
        if logprobs not in (None, False, True, 0, 1):
            raise _invalid("logprobs", logprobs, "only the chosen token's log-prob is kept; give true or false")
        given |= {
            "stop": (stop,) if isinstance(stop, str) else tuple(stop),
            "stop_token_ids": frozenset(given.get("stop_token_ids") or ()),
            # vLLM's 0 means: the chosen token's log-prob and no others
            "logprobs": logprobs is not None and logprobs is not False,
            "min_tokens": given.get("min_tokens") or 0,
            "top_k": -1 if given.get("top_k") is None else given["top_k"],
        }
        return cls(**given)

    def __post_init__(self) -> None:
        for key, holds, remedy in (
            ("temperature", self.temperature >= 0, "give 0 for greedy or a positive number"),
            ("top_p", 0 < self.top_p <= 1, "give a number above 0 and up to 1"),
            ("top_k", self.top_k >= -1, "give -1 for all tokens or a positive number"),
            ("max_tokens", self.max_tokens is None or self.max_tokens >= 1, "give at least 1"),
            ("min_tokens", self.min_tokens >= 0, "give 0 or more"),
            ("stop", all(self.stop), "an empty string stops everywhere; leave it out"),
            ("seed", self.seed is None or self.seed >= 0, "give a non-negative integer"),
        ):
            if not holds:
                raise _invalid(key, getattr(self, key), remedy)


def _invalid(key: str, value: object, remedy: str) -> ValueError:
    return ValueError(f"sampling key {key} is {value!r}: {remedy}")


class TooLongError(ValueError):
    """A prompt that leaves no room for what may be generated."""


def tokens_allowed(params: SamplingParams, prompt_tokens: int, max_model_len: int, *, request_id: str) -> int:
    """How many tokens a request may generate: `max_tokens`, or what the model has room for.

    Raises ValueError when there is no prompt, TooLongError when `max_tokens` does not fit behind it.
    """
    if prompt_tokens == 0:
        raise ValueError(f"request {request_id}: prompt_ids is empty; give at least one token")
    room = max_model_len - prompt_tokens
    if (params.max_tokens or 1) > room:
        sizes = f"{prompt_tokens} prompt tokens and max_tokens {params.max_tokens}"
        raise TooLongError(
            f"request {request_id}: {sizes} exceed the model length of {max_model_len}; "
            "shorten the prompt or lower max_tokens"
        )
    return params.max_tokens or room
