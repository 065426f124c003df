"""All numbers behind the report's figures, and how they stand in `importance.json`."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from verl_longshort.data.importance import Floats
from verl_longshort.evaluation.metrics import Interval
from verl_longshort.report.importance.chains import WeighedChain
from verl_longshort.report.importance.intervals import mean_interval, share_interval
from verl_longshort.report.importance.positions import (
    PrefixBin,
    Survivors,
    ThoughtBin,
    importance_by_position,
    importance_by_share,
    prefixes_by_count,
    prefixes_by_share,
    survivors,
)

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
SETTLED = 0.1
"""A decision less likely to flip than this is called settled, as in the summary of `weigh`."""
_GAP_BINS = 30


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
    """All of it; `rule` is the one that the chains were read with."""
    problems = [chain.problem for chain in chains]
    decided = [(chain, index) for chain in chains for index in range(1, len(chain.m))]
    kept = [float(np.diff(chain.lengths)[list(chain.keep)].sum() / chain.lengths[-1]) for chain in chains]
    return Statistics(
        rule=rule,
        chains=len(chains),
        problems=len(set(problems)),
        thoughts=sum(len(chain.m) for chain in chains),
        decisions=len(decided),
        rollouts=sum(chain.rollouts for chain in chains),
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
        noise=[noise(chains, threshold) for threshold in THRESHOLDS] if decided else [],
        bound=bound(chains) if decided else None,
        kinds=kinds(chains, lambda chain: [thought.kind for thought in chain.thoughts]),
        labels=kinds(chains, lambda chain: chain.labels or ()),
    )


def noise(chains: Sequence[WeighedChain], threshold: float) -> Noise:
    """Decisions and penalties more likely to flip than `threshold`. The probabilities are those of the
    paper's rule, whatever the report's."""
    rows = [
        (thought.flip > threshold, chain.keep[index], chain.problem)
        for chain in chains
        for index, thought in enumerate(chain.thoughts)
        if index
    ]
    deltas = [
        (thought.delta_flip > threshold, chain.problem)
        for chain in chains
        for thought in chain.thoughts
        if thought.delta_flip is not None
    ]
    return Noise(
        threshold=threshold,
        decisions=share_interval([row[0] for row in rows], [row[2] for row in rows]),
        kept=_share([(flips, problem) for flips, keep, problem in rows if keep]),
        compressed=_share([(flips, problem) for flips, keep, problem in rows if not keep]),
        delta=_share(deltas),
    )


def bound(chains: Sequence[WeighedChain]) -> Bound:
    """Bounds against gaps, over all decisions."""
    gaps: Floats = np.concatenate([gaps_to_highest(chain.m) for chain in chains])
    bounds = np.array([thought.bound for chain in chains for thought in chain.thoughts[1:]])
    problems = [chain.problem for chain in chains for _ in chain.thoughts[1:]]
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
    found: dict[str, list[tuple[WeighedChain, int]]] = {}
    for chain in chains:
        for index, name in enumerate(names(chain)):
            found.setdefault(name or "no kind", []).append((chain, index))
    rows = [_kind(name, members) for name, members in found.items()]
    return sorted(rows, key=lambda kind: -kind.m.value)


def plain(value: Any) -> Any:
    """As JSON values: NaN is null, an array a list."""
    if isinstance(value, Interval):
        return value.to_json()
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else round(float(value), 6)
    return value


def _kind(name: str, members: Sequence[tuple[WeighedChain, int]]) -> Kind:
    problems = [chain.problem for chain, _ in members]
    return Kind(
        name=name,
        thoughts=len(members),
        m=mean_interval([chain.m[index] for chain, index in members], problems),
        kept=share_interval([chain.keep[index] for chain, index in members], problems),
    )


def _share(rows: Sequence[tuple[bool, str]]) -> Interval | None:
    return share_interval([row[0] for row in rows], [row[1] for row in rows]) if rows else None


def _counted(numbers: Any) -> dict[int, int]:
    return dict(sorted(Counter(numbers).items()))
