"""Importance, accuracy and length by position in the chain: absolute (the i-th) and relative (a share).

The later a position, the fewer and the longer are the chains that have it. Every bin says how many those are.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from verl_longshort.evaluation.metrics import Interval
from verl_longshort.report.importance.chains import WeighedChain
from verl_longshort.report.importance.intervals import mean_interval, share_interval

_MOST_BINS = 25
_FINE, _COARSE = 10, 5
_LONG_CHAIN = 20
_STEPS = (1, 2, 5)

Span = tuple[float, float]
"""First and last position of a bin, both in it; as shares, its two ends."""


@dataclass(frozen=True, kw_only=True)
class ThoughtBin:
    """The thoughts at some positions."""

    span: Span
    thoughts: int
    chains: int
    kept: int
    """Thoughts that stay long."""
    m: Interval


@dataclass(frozen=True, kw_only=True)
class PrefixBin:
    """The prefixes with some numbers, or shares, of thoughts."""

    span: Span
    prefixes: int
    chains: int
    accuracy: Interval
    tokens: Interval
    """Of the prefix."""
    whole: Interval
    """Tokens of the whole chains that these prefixes belong to."""
    share: Interval
    """Tokens of the prefix relative to the whole chain."""


@dataclass(frozen=True, kw_only=True)
class Survivors:
    """Chains that have a thought at this position (from 1), and in how many of them it stays long."""

    position: int
    chains: int
    kept: int


def importance_by_position(chains: Sequence[WeighedChain]) -> list[ThoughtBin]:
    """M of the i-th thoughts, i from 1; several positions to a bin where chains are long."""
    width = bin_width(max(len(chain.m) for chain in chains))
    return _thought_bins(chains, lambda index, _: _span(index + 1, width, first=1))


def importance_by_share(chains: Sequence[WeighedChain]) -> list[ThoughtBin]:
    """M by where the middle of a thought's place among its chain's n lies: (i - 1/2) / n."""
    bins = share_bins(chains)
    return _thought_bins(chains, lambda index, n: _share_span((2 * index + 1) * bins, 2 * n, bins))


def prefixes_by_count(chains: Sequence[WeighedChain]) -> list[PrefixBin]:
    """Accuracy and length of the prefixes with i thoughts; the empty one has a bin of its own."""
    width = bin_width(max(len(chain.m) for chain in chains))
    return _prefix_bins(chains, lambda count, _: _span(count, width, first=1) if count else (0, 0))


def prefixes_by_share(chains: Sequence[WeighedChain]) -> list[PrefixBin]:
    """The same by i / n; no thoughts at all and the whole chain have bins of their own."""
    bins = share_bins(chains)

    def span(count: int, n: int) -> Span:
        return (count / n, count / n) if count in {0, n} else _share_span(count * bins, n, bins)

    return _prefix_bins(chains, span)


def survivors(chains: Sequence[WeighedChain]) -> list[Survivors]:
    """For each position that any chain has."""
    there = Counter(position for chain in chains for position in range(1, len(chain.m) + 1))
    kept = Counter(position for chain in chains for position, keep in enumerate(chain.keep, start=1) if keep)
    return [Survivors(position=at, chains=there[at], kept=kept[at]) for at in sorted(there)]


def bin_width(longest: int) -> int:
    """The least of 1, 2, 5, 10, 20, 50 ... with which positions up to `longest` need at most 25 bins."""
    width = 1
    for power in range(1 + math.ceil(math.log10(max(1, longest)))):
        for step in _STEPS:
            width = step * 10**power
            if longest <= _MOST_BINS * width:
                return width
    return width


def share_bins(chains: Sequence[WeighedChain]) -> int:
    """Ten, or five where most chains are short: their thoughts would leave gaps between ten."""
    return _FINE if float(np.median([len(chain.m) for chain in chains])) >= _LONG_CHAIN else _COARSE


def _span(position: int, width: int, *, first: int) -> Span:
    start = (position - first) // width * width + first
    return (start, start + width - 1)


def _share_span(numerator: int, denominator: int, bins: int) -> Span:
    """The bin of numerator / denominator, from 0 to `bins`; whole numbers, so that no edge is rounded."""
    index = min(numerator // denominator, bins - 1)
    return (index / bins, (index + 1) / bins)


def _thought_bins(chains: Sequence[WeighedChain], span_of: Callable[[int, int], Span]) -> list[ThoughtBin]:
    places = _gathered(chains, span_of, lambda chain: range(len(chain.m)))
    return [
        ThoughtBin(
            span=span,
            thoughts=len(members),
            chains=len({id(chain) for chain, _ in members}),
            kept=sum(chain.keep[index] for chain, index in members),
            m=mean_interval([chain.m[index] for chain, index in members], _problems(members)),
        )
        for span, members in places
    ]


def _prefix_bins(chains: Sequence[WeighedChain], span_of: Callable[[int, int], Span]) -> list[PrefixBin]:
    places = _gathered(chains, span_of, lambda chain: range(len(chain.m) + 1))
    return [_prefix_bin(span, members) for span, members in places]


def _prefix_bin(span: Span, members: Sequence[tuple[WeighedChain, int]]) -> PrefixBin:
    problems = _problems(members)
    tokens = np.array([chain.lengths[index] for chain, index in members])
    whole = np.array([chain.lengths[-1] for chain, _ in members])
    return PrefixBin(
        span=span,
        prefixes=len(members),
        chains=len({id(chain) for chain, _ in members}),
        accuracy=share_interval([chain.accuracies[index] for chain, index in members], problems),
        tokens=mean_interval(tokens, problems),
        whole=mean_interval(whole, problems),
        share=mean_interval(tokens / whole, problems),
    )


def _gathered(
    chains: Sequence[WeighedChain],
    span_of: Callable[[int, int], Span],
    places: Callable[[WeighedChain], Iterable[int]],
) -> list[tuple[Span, list[tuple[WeighedChain, int]]]]:
    """What lies in each span, spans in order."""
    found: dict[Span, list[tuple[WeighedChain, int]]] = {}
    for chain in chains:
        for index in places(chain):
            found.setdefault(span_of(index, len(chain.m)), []).append((chain, index))
    return sorted(found.items(), key=lambda item: item[0])


def _problems(members: Sequence[tuple[WeighedChain, int]]) -> list[str]:
    return [chain.problem for chain, _ in members]
