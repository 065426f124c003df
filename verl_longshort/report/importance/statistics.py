"""All numbers behind the report's figures, and how they stand in `importance.json`.

Positions in a chain are absolute (the i-th) or relative (a share). The later a position, the fewer and the longer are
the chains that have it, so every bin says how many those are.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import count
from typing import Any

import numpy as np

from verl_longshort.data.importance import Floats
from verl_longshort.evaluation.metrics import Interval
from verl_longshort.report.importance.chains import WeighedChain
from verl_longshort.report.importance.intervals import mean_interval, share_interval

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
SETTLED = 0.1
"""A decision less likely to flip than this is called settled, as in the summary of `weigh`."""
_GAP_BINS = 30
_MOST_BINS = 25

Span = tuple[float, float]
"""First and last position of a bin, both in it; as shares, its two ends."""
_Members = Sequence[tuple[WeighedChain, int]]
"""Thoughts, or prefixes, by their chain and their index in it."""


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


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Shares of what is within noise: more likely than `threshold` to come out the other way."""

    threshold: float
    decisions: Interval
    kept: Interval | None
    """Of the decisions to keep; None where there are none."""
    compressed: Interval | None
    delta: Interval | None
    """Of the penalties; None where the records do not tell."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The bound on |M - M_opt| beside what it would have to settle.

    A decision of the paper's rule turns on the gap |M - highest M before|.
    """

    mean: float
    gap_edges: list[float]
    """Ends of the bins, from 0 on; the highest is no less than the mean bound."""
    gap_counts: list[int]
    """Decisions with a gap in each bin."""
    above_gap: Interval
    """Share of the decisions whose bound is larger than their gap."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The thoughts of one kind."""

    name: str
    thoughts: int
    m: Interval
    kept: Interval


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What the report says about some chains under one rule. Intervals are of 95 %."""

    rule: str
    chains: int
    problems: int
    thoughts: int
    decisions: int
    """Thoughts but for the first of each chain, which every rule keeps."""
    rollouts: int
    models: list[str]
    tokenizers: list[str]
    accuracy_start: Interval
    """Of the problem alone."""
    accuracy_end: Interval
    """Of the whole chain."""
    kept_tokens: Interval
    """Share of the tokens of a chain that stay long."""
    thoughts_per_chain: dict[int, int]
    """How many chains have that many thoughts."""
    kept_per_chain: dict[int, int]
    importance_by_position: list[ThoughtBin]
    importance_by_share: list[ThoughtBin]
    prefixes_by_count: list[PrefixBin]
    prefixes_by_share: list[PrefixBin]
    survivors: list[Survivors]
    noise: list[Noise]
    bound: Bound | None
    """None, like an empty `noise`, where every chain has one thought: nothing is decided."""
    kinds: list[Kind]
    """By the kind that the chunker gave."""
    labels: list[Kind]
    """By the kind that the generator of the chains gave; empty where it is not known."""


def compute(chains: Sequence[WeighedChain], *, rule: str) -> Statistics:
    """All the statistics; `rule` is the one that the chains were read with."""
    problems = [chain.problem for chain in chains]
    thoughts = sum(len(chain.m) for chain in chains)
    decisions = thoughts - len(chains)
    kept = [float(np.diff(chain.lengths)[list(chain.keep)].sum() / chain.lengths[-1]) for chain in chains]
    return Statistics(
        rule=rule,
        chains=len(chains),
        problems=len(set(problems)),
        thoughts=thoughts,
        decisions=decisions,
        rollouts=sum(prefix.samples for chain in chains for prefix in (chain.record.p_start, *chain.record.thoughts)),
        models=sorted({chain.record.model for chain in chains}),
        tokenizers=sorted({chain.record.tokenizer for chain in chains}),
        accuracy_start=share_interval([chain.accuracies[0] for chain in chains], problems),
        accuracy_end=share_interval([chain.accuracies[-1] for chain in chains], problems),
        kept_tokens=mean_interval(kept, problems),
        thoughts_per_chain=_counted(len(chain.m) for chain in chains),
        kept_per_chain=_counted(sum(chain.keep) for chain in chains),
        importance_by_position=importance_by_position(chains),
        importance_by_share=importance_by_share(chains),
        prefixes_by_count=prefixes_by_count(chains),
        prefixes_by_share=prefixes_by_share(chains),
        survivors=survivors(chains),
        noise=[noise(chains, threshold) for threshold in THRESHOLDS] if decisions else [],
        bound=bound(chains) if decisions else None,
        kinds=kinds(chains, lambda chain: [thought.kind for thought in chain.record.thoughts]),
        labels=kinds(chains, lambda chain: chain.labels or ()),
    )


def importance_by_position(chains: Sequence[WeighedChain]) -> list[ThoughtBin]:
    """M of the i-th thoughts, i from 1; several positions to a bin where chains are long."""
    width = bin_width(max(len(chain.m) for chain in chains))
    return _thought_bins(chains, lambda index, _: _span(index + 1, width))


def importance_by_share(chains: Sequence[WeighedChain]) -> list[ThoughtBin]:
    """M by where the middle of a thought's place among its chain's n lies: (i - 1/2) / n."""
    bins = share_bins(chains)
    return _thought_bins(chains, lambda index, n: _share_span((2 * index + 1) * bins, 2 * n, bins))


def prefixes_by_count(chains: Sequence[WeighedChain]) -> list[PrefixBin]:
    """Accuracy and length of the prefixes with i thoughts; the empty one has a bin of its own."""
    width = bin_width(max(len(chain.m) for chain in chains))
    return _prefix_bins(chains, lambda kept, _: _span(kept, width) if kept else (0, 0))


def prefixes_by_share(chains: Sequence[WeighedChain]) -> list[PrefixBin]:
    """The same by i / n; no thoughts at all and the whole chain have bins of their own."""
    bins = share_bins(chains)

    def span(kept: int, n: int) -> Span:
        return (kept / n, kept / n) if kept in {0, n} else _share_span(kept * bins, n, bins)

    return _prefix_bins(chains, span)


def survivors(chains: Sequence[WeighedChain]) -> list[Survivors]:
    """For each position that any chain has."""
    there = Counter(position for chain in chains for position in range(1, len(chain.m) + 1))
    kept = Counter(position for chain in chains for position, keep in enumerate(chain.keep, start=1) if keep)
    return [Survivors(position=at, chains=there[at], kept=kept[at]) for at in sorted(there)]


def bin_width(longest: int) -> int:
    """The least of 1, 2, 5, 10, 20, 50 ... with which positions up to `longest` need at most 25 bins."""
    widths = (step * 10**power for power in count() for step in (1, 2, 5))
    return next(width for width in widths if longest <= _MOST_BINS * width)


def share_bins(chains: Sequence[WeighedChain]) -> int:
    """Ten, or five where most chains are short: their thoughts would leave gaps between ten."""
    return 10 if np.median([len(chain.m) for chain in chains]) >= 20 else 5


def noise(chains: Sequence[WeighedChain], threshold: float) -> Noise:
    """Decisions and penalties more likely to flip than `threshold`. The probabilities are those of the
    paper's rule, whatever the report's."""
    decided = [
        (thought.flip > threshold, chain.problem, keep)
        for chain in chains
        for thought, keep in zip(chain.record.thoughts[1:], chain.keep[1:], strict=True)
    ]
    deltas = [
        (thought.delta_flip > threshold, chain.problem)
        for chain in chains
        for thought in chain.record.thoughts
        if thought.delta_flip is not None
    ]

    def share(rows: Sequence[tuple[bool, str]]) -> Interval | None:
        return share_interval([flips for flips, _ in rows], [problem for _, problem in rows]) if rows else None

    return Noise(
        threshold=threshold,
        decisions=share_interval([flips for flips, _, _ in decided], [problem for _, problem, _ in decided]),
        kept=share([(flips, problem) for flips, problem, keep in decided if keep]),
        compressed=share([(flips, problem) for flips, problem, keep in decided if not keep]),
        delta=share(deltas),
    )


def bound(chains: Sequence[WeighedChain]) -> Bound:
    """Bounds against gaps, over all decisions."""
    gaps: Floats = np.concatenate([gaps_to_highest(chain.m) for chain in chains])
    bounds = np.array([thought.bound for chain in chains for thought in chain.record.thoughts[1:]])
    problems = [chain.problem for chain in chains for _ in chain.record.thoughts[1:]]
    mean = float(bounds.mean())
    counts, edges = np.histogram(gaps, _GAP_BINS, (0, max(float(gaps.max()), mean) * 1.02))
    return Bound(
        mean=mean,
        gap_edges=edges.tolist(),
        gap_counts=counts.tolist(),
        above_gap=share_interval((bounds > gaps).tolist(), problems),
    )


def gaps_to_highest(m: Floats) -> Floats:
    """|M_i - highest M before it|: [n] give [n - 1]."""
    return np.abs(m[1:] - np.maximum.accumulate(m)[:-1])


def kinds(chains: Sequence[WeighedChain], names: Callable[[WeighedChain], Sequence[str]]) -> list[Kind]:
    """M and the share kept by kind, the most important first; chains for which `names` is empty do not
    count."""
    found: dict[str, list[tuple[WeighedChain, int]]] = defaultdict(list)
    for chain in chains:
        for index, name in enumerate(names(chain)):
            found[name or "no kind"].append((chain, index))
    rows = [
        Kind(
            name=name,
            thoughts=len(members),
            m=mean_interval([chain.m[index] for chain, index in members], _problems(members)),
            kept=share_interval([chain.keep[index] for chain, index in members], _problems(members)),
        )
        for name, members in found.items()
    ]
    return sorted(rows, key=lambda kind: -kind.m.value)


def plain(value: Any) -> Any:
    """As JSON values, numbers but those of intervals rounded."""
    if isinstance(value, Interval):
        return value.to_json()
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def _counted(numbers: Iterable[int]) -> dict[int, int]:
    return dict(sorted(Counter(numbers).items()))


def _span(position: int, width: int) -> Span:
    start = (position - 1) // width * width + 1
    return (start, start + width - 1)


def _share_span(numerator: int, denominator: int, bins: int) -> Span:
    """The bin of numerator / denominator, from 0 to `bins`; integers, so that no edge is rounded."""
    index = min(numerator // denominator, bins - 1)
    return (index / bins, (index + 1) / bins)


def _thought_bins(chains: Sequence[WeighedChain], span_of: Callable[[int, int], Span]) -> list[ThoughtBin]:
    thoughts = [(chain, index) for chain in chains for index in range(len(chain.m))]
    return [
        ThoughtBin(
            span=span,
            thoughts=len(members),
            chains=len({id(chain) for chain, _ in members}),
            kept=sum(chain.keep[index] for chain, index in members),
            m=mean_interval([chain.m[index] for chain, index in members], _problems(members)),
        )
        for span, members in _by_span(thoughts, span_of)
    ]


def _prefix_bins(chains: Sequence[WeighedChain], span_of: Callable[[int, int], Span]) -> list[PrefixBin]:
    prefixes = [(chain, index) for chain in chains for index in range(len(chain.m) + 1)]
    bins = []
    for span, members in _by_span(prefixes, span_of):
        problems = _problems(members)
        tokens = np.array([chain.lengths[index] for chain, index in members])
        whole = np.array([chain.lengths[-1] for chain, _ in members])
        bins.append(
            PrefixBin(
                span=span,
                prefixes=len(members),
                chains=len({id(chain) for chain, _ in members}),
                accuracy=share_interval([chain.accuracies[index] for chain, index in members], problems),
                tokens=mean_interval(tokens, problems),
                whole=mean_interval(whole, problems),
                share=mean_interval(tokens / whole, problems),
            )
        )
    return bins


def _by_span(members: _Members, span_of: Callable[[int, int], Span]) -> list[tuple[Span, _Members]]:
    """The members in each span, spans in order; `span_of` takes an index and the chain's n."""
    found: dict[Span, list[tuple[WeighedChain, int]]] = defaultdict(list)
    for chain, index in members:
        found[span_of(index, len(chain.m))].append((chain, index))
    return sorted(found.items(), key=lambda item: item[0])


def _problems(members: _Members) -> list[str]:
    return [chain.problem for chain, _ in members]
