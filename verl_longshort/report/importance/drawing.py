"""How each figure is drawn: statistics onto axes, in the colours of a paint."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from verl_longshort.evaluation.metrics import Interval
from verl_longshort.report.importance.marks import (
    Paint,
    as_shares,
    axes_below,
    by_count,
    by_share,
    counts_below,
    line,
    reach,
    whole_numbers,
)
from verl_longshort.report.importance.positions import Span
from verl_longshort.report.importance.statistics import Kind, Statistics
from verl_longshort.report.svg import Ink

_KINDS = 12
_NAME_LENGTH = 26
_FEW = 30


def importance_by_position(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """M by absolute position."""
    bins = statistics.importance_by_position
    spans = [each.span for each in bins]
    _importance(axes, spans, [each.m for each in bins], paint)
    below = counts_below(axes, spans, [each.thoughts for each in bins], "thoughts", paint)
    by_count(axes, below, "position of the thought in its chain")


def importance_by_share(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """M by relative position."""
    bins = statistics.importance_by_share
    spans = [each.span for each in bins]
    _importance(axes, spans, [each.m for each in bins], paint)
    below = counts_below(axes, spans, [each.thoughts for each in bins], "thoughts", paint)
    by_share(axes, below, "position of the thought, from first to last")


def accuracy_by_count(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """Accuracy by the number of thoughts kept."""
    bins = statistics.prefixes_by_count
    spans = [each.span for each in bins]
    _accuracy(axes, spans, [each.accuracy for each in bins], paint)
    below = counts_below(axes, spans, [each.chains for each in bins], "chains", paint)
    by_count(axes, below, "thoughts kept")


def accuracy_by_share(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """Accuracy by the share of thoughts kept."""
    bins = statistics.prefixes_by_share
    spans = [each.span for each in bins]
    _accuracy(axes, spans, [each.accuracy for each in bins], paint)
    below = counts_below(axes, spans, [each.chains for each in bins], "chains", paint)
    by_share(axes, below, "thoughts kept")


def tokens_by_count(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """Tokens of the prefix and of the chain it belongs to."""
    bins = statistics.prefixes_by_count
    spans = [each.span for each in bins]
    line(axes, spans, [each.whole for each in bins], paint[Ink.MUTED], "whole chain", dashed=True)
    line(axes, spans, [each.tokens for each in bins], paint[Ink.LONG], "prefix")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("tokens")
    axes.legend(loc="best")
    below = counts_below(axes, spans, [each.chains for each in bins], "chains", paint)
    by_count(axes, below, "thoughts kept")


def tokens_by_share(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """Share of a chain's tokens in the prefix, and what remains."""
    bins = statistics.prefixes_by_share
    spans = [each.span for each in bins]
    shares = [each.share for each in bins]
    rest = [Interval(value=1 - each.value, low=1 - each.high, high=1 - each.low) for each in shares]
    line(axes, spans, shares, paint[Ink.LONG], "prefix")
    line(axes, spans, rest, paint[Ink.SHORT], "remaining", dashed=True)
    as_shares(axes, "share of tokens")
    axes.legend(loc="center right")
    below = counts_below(axes, spans, [each.chains for each in bins], "chains", paint)
    by_share(axes, below, "thoughts kept")


def survivors(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """Chains by the positions they reach, and the thoughts that stay long there."""
    edges = [0.5, *(each.position + 0.5 for each in statistics.survivors)]
    chains = [each.chains for each in statistics.survivors]
    axes.stairs(chains, edges, fill=True, color=paint[Ink.MUTED], alpha=0.35, label="chains")
    bins = statistics.importance_by_position
    wide = [end - start + 1 for start, end in (each.span for each in bins)]
    axes.bar(
        [sum(each.span) / 2 for each in bins],
        [each.kept / width for each, width in zip(bins, wide, strict=True)],
        wide,
        color=paint[Ink.LONG],
        label="stays long",
    )
    axes.set_ylabel("chains")
    axes.legend(loc="upper right")
    axes.set_xlabel("position of the thought in its chain")
    whole_numbers(axes)


def per_chain(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """How many thoughts chains have, and below it how many of them stay long."""
    below = axes_below(axes, (1, 1))
    for part, counted, colour, name in (
        (axes, statistics.thoughts_per_chain, paint[Ink.MUTED], "thoughts"),
        (below, statistics.kept_per_chain, paint[Ink.LONG], "of them long"),
    ):
        least, most = min(counted), max(counted)
        edges = np.linspace(least - 0.5, most + 0.5, min(most - least + 1, _FEW) + 1).tolist()
        part.hist(list(counted), edges, weights=list(counted.values()), color=colour, rwidth=0.85)
        part.set_xlabel(name)
        part.set_ylabel("chains")
        whole_numbers(part)


def noise(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """Shares of decisions and penalties that flip more often than a threshold."""
    rows = statistics.noise
    at = [row.threshold for row in rows]
    for values, colour, name, marker in (
        ([row.decisions for row in rows], paint[Ink.INK], "all decisions", "o"),
        ([row.kept for row in rows], paint[Ink.LONG], "to keep", "s"),
        ([row.compressed for row in rows], paint[Ink.SHORT], "to compress", "D"),
        ([row.delta for row in rows], paint[Ink.FOURTH], "δ", "^"),
    ):
        there = [value for value in values if value is not None]
        if there:
            _curve(axes, at, there, colour, name, marker)
    as_shares(axes, "share within noise")
    axes.set_xlabel("probability of a flip above")
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=4, columnspacing=1, handlelength=1.4)


def gaps(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """The gaps that decide, and the bound."""
    bound = statistics.bound
    assert bound is not None, "shown where there are decisions only"
    axes.stairs(bound.gap_counts, bound.gap_edges, fill=True, color=paint[Ink.LONG], alpha=0.85)
    axes.set_ylim(0, 1.15 * max(bound.gap_counts))
    axes.axvline(bound.mean, color=paint[Ink.WRONG], linestyle="--")
    axes.annotate(
        "mean bound ",
        (bound.mean, 0.98),
        xycoords=("data", "axes fraction"),
        ha="right",
        va="top",
        color=paint[Ink.WRONG],
    )
    axes.set_xlabel("|M − highest M before|")
    axes.set_ylabel("decisions")


def kinds(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """M by the chunker's kinds."""
    _kinds(axes, statistics.kinds, paint)


def labels(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """M by the generator's kinds."""
    _kinds(axes, statistics.labels, paint)


def _kinds(axes: Axes, rows: Sequence[Kind], paint: Paint) -> None:
    """The most frequent ones."""
    frequent = sorted(rows, key=lambda kind: -kind.thoughts)[:_KINDS]
    there = [kind for kind in rows if kind in frequent][::-1]
    at = list(range(len(there)))
    means = [kind.m for kind in there]
    axes.axvline(0, color=paint[Ink.MUTED], linewidth=0.8)
    axes.errorbar([mean.value for mean in means], at, xerr=reach(means), fmt="o", color=paint[Ink.LONG], markersize=4)
    # a kind may be any text: signs of formulas in it are only signs
    axes.set_yticks(at, [_short(kind.name) for kind in there], parse_math=False)
    axes.set_ylim(-0.6, len(there) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("M")
    right = axes.secondary_yaxis("right")
    right.set_yticks(at, [f"{kind.thoughts} · {kind.kept.value:.0%}" for kind in there])
    for each in (axes, right):
        each.tick_params(axis="y", length=0)
    right.spines["right"].set_visible(False)


def _importance(axes: Axes, spans: Sequence[Span], values: Sequence[Interval], paint: Paint) -> None:
    axes.axhline(0, color=paint[Ink.MUTED], linewidth=0.8)
    line(axes, spans, values, paint[Ink.LONG], "M", marker="o")
    axes.set_ylabel("M")


def _accuracy(axes: Axes, spans: Sequence[Span], values: Sequence[Interval], paint: Paint) -> None:
    line(axes, spans, values, paint[Ink.RIGHT], "accuracy", marker="o")
    as_shares(axes, "accuracy")


def _curve(axes: Axes, at: Sequence[float], values: Sequence[Interval], colour: str, name: str, marker: str) -> None:
    means = [each.value for each in values]
    axes.errorbar(at, means, yerr=reach(values), color=colour, marker=marker, markersize=4, elinewidth=1, label=name)


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"
