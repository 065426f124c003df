"""What a request asks of sampling, and sampling one token for every row of a batch.

* `SamplingParams`: the sampling keys of one request, checked. Names and meanings are vLLM's.
* `tokens_allowed`: how long its answer may be.
* `noise`: the uniform numbers behind a request's samples, a function of its seed and of token positions only.
* `RowRules`: the params of all rows of a batch as tensors.
* `sample`: logits to tokens and log-probs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NEUTRAL = {
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "min_p": 0.0,
    "n": 1,
}
"""Keys that are accepted as long as they ask for nothing."""

_DRAWS_PER_BLOCK = 4  # Philox makes four 64-bit numbers per counter value


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
        return cls(**{**given, **_normalised(given)})

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


def _normalised(given: Mapping[str, Any]) -> dict[str, Any]:
    stop = given.get("stop") or ()
    logprobs = given.get("logprobs")
    if logprobs not in (None, False, True, 0, 1):
        raise _invalid("logprobs", logprobs, "only the chosen token's log-prob is kept; give true or false")
    return {
        "stop": (stop,) if isinstance(stop, str) else tuple(stop),
        "stop_token_ids": frozenset(given.get("stop_token_ids") or ()),
        # vLLM's 0 means: the chosen token's log-prob and no others
        "logprobs": logprobs is not None and logprobs is not False,
        "min_tokens": given.get("min_tokens") or 0,
        "top_k": -1 if given.get("top_k") is None else given["top_k"],
    }


def _invalid(key: str, value: object, remedy: str) -> ValueError:
    return ValueError(f"sampling key {key} is {value!r}: {remedy}")


def tokens_allowed(params: SamplingParams, prompt_tokens: int, max_model_len: int, *, request_id: str) -> int:
    """How many tokens a request may generate: `max_tokens`, or what the model has room for.

    Raises ValueError when there is no prompt or `max_tokens` does not fit behind it.
    """
    if prompt_tokens == 0:
        raise ValueError(f"request {request_id}: prompt_ids is empty; give at least one token")
    room = max_model_len - prompt_tokens
    if (params.max_tokens or 1) > room:
        sizes = f"{prompt_tokens} prompt tokens and max_tokens {params.max_tokens}"
        raise ValueError(
            f"request {request_id}: {sizes} exceed the model length of {max_model_len}; "
            "shorten the prompt or lower max_tokens"
        )
    return params.max_tokens or room


def noise(seed: int, first: int, count: int) -> list[float]:
    """Uniform numbers in [0, 1) for the tokens at positions `first` … `first + count - 1` of a sequence.

    Positions, not turns, number them: a request that continues an earlier one with the same seed gets fresh
    numbers, and one that was aborted and continued gets those of an uninterrupted run.
    """
    blocks, skipped = divmod(first, _DRAWS_PER_BLOCK)
    bits = np.random.Philox(key=seed % 2**128)
    bits.advance(blocks)
    return np.random.Generator(bits).random(skipped + count).tolist()[skipped:]


class RowRules:
    """The sampling params of a batch's rows, as tensors of length [rows]; made anew when the rows change."""

    def __init__(self, params: Sequence[SamplingParams], vocab_size: int, device: torch.device) -> None:
        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device).unsqueeze(1)

        self.some_greedy = any(p.temperature == 0 for p in params)
        self.all_greedy = all(p.temperature == 0 for p in params)
        self.unscaled = all(p.temperature in (0, 1) for p in params)
        self.some_minimum = any(p.min_tokens for p in params)
        self.filtered = any(p.top_p < 1 or 0 < p.top_k < vocab_size for p in params)
        self.greedy = column([p.temperature == 0 for p in params]).squeeze(1).bool()
        self.temperature = column([p.temperature or 1.0 for p in params])
        self.top_p = column([p.top_p for p in params])
        self.top_k = column([p.top_k if p.top_k > 0 else vocab_size for p in params])


def sample(
    logits: Tensor, rules: RowRules, uniforms: Sequence[float], banned: Mapping[int, list[int]]
) -> tuple[Tensor, Tensor]:
    """Choose one token for every row.

    Args:
        logits: [rows, vocabulary], float32.
        uniforms: one number in [0, 1) per row; greedy rows do not look at theirs.
        banned: row index -> token ids that it may not get now.

    Returns:
        Tokens [rows], int64, and log-probs [rows], float32: log_softmax(logits / temperature) of the chosen
        token, over the whole vocabulary also under top_k, top_p and bans; greedy rows use temperature 1.
    """
    logprobs = torch.log_softmax(logits if rules.unscaled else logits / rules.temperature, dim=-1)
    allowed = _filtered(logprobs, rules) if rules.filtered else logprobs
    if banned:
        allowed = allowed.clone()
        for row, ids in banned.items():
            allowed[row, ids] = float("-inf")
    tokens = _choose(allowed, rules, uniforms)
    return tokens, logprobs.gather(1, tokens.unsqueeze(1)).squeeze(1)


def _choose(allowed: Tensor, rules: RowRules, uniforms: Sequence[float]) -> Tensor:
    if rules.all_greedy:
        return allowed.argmax(-1)
    # float64: a float32 sum over a large vocabulary would shift the tail
    cumulative = allowed.exp().cumsum(-1, dtype=torch.float64)
    target = torch.tensor(uniforms, dtype=torch.float64, device=allowed.device) * cumulative[:, -1]
    sampled = torch.searchsorted(cumulative, target.unsqueeze(1), right=True).squeeze(1)
    sampled.clamp_(max=allowed.shape[1] - 1)
    return torch.where(rules.greedy, allowed.argmax(-1), sampled) if rules.some_greedy else sampled


def _filtered(logprobs: Tensor, rules: RowRules) -> Tensor:
    """Minus infinity for tokens outside top_k, then outside top_p of what is left."""
    ordered, tokens = logprobs.sort(dim=-1, descending=True)
    ranks = torch.arange(ordered.shape[1], device=ordered.device)
    ordered = ordered.masked_fill(ranks >= rules.top_k, float("-inf"))
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    # the first token always stays: rounding must not leave a row without any
    outside = (before >= rules.top_p) & (ranks > 0)
    kept = ordered.masked_fill(outside, float("-inf"))
    return torch.empty_like(logprobs).scatter_(1, tokens, kept)
