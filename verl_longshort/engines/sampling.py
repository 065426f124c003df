"""Sampling one token for every row of a batch.

* `noise`: the uniform numbers behind a request's samples, a function of its seed and of token positions only.
* `RowRules`: the params of all rows of a batch as tensors.
* `sample`: logits to tokens and log-probs.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from verl_longshort.engines.sampling_params import SamplingParams

_DRAWS_PER_BLOCK = 4  # Philox makes four 64-bit numbers per counter value


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
