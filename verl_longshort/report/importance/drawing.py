"""How each figure is drawn: statistics onto axes, in the colours of a `Paint`."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from verl_longshort.evaluation.metrics import Interval
from verl_longshort.report.importance.statistics import Kind, PrefixBin, Statistics, ThoughtBin
from verl_longshort.report.svg import Ink, shortened

Bins = Sequence[ThoughtBin] | Sequence[PrefixBin]
Paint = Mapping[Ink, str]
"""A colour for each of the page's."""

_MOST_KINDS = 12
_MOST_BARS = 30


def importance(axes: Axes, bins: Sequence[ThoughtBin], paint: Paint, x: str, *, shares: bool = False) -> None:
    """M by position; `x` names the axis, which is relative with `shares`."""
    axes.axhline(0, color=paint[Ink.MUTED], linewidth=0.8)
    _line(axes, bins, [each.m for each in bins], paint[Ink.LONG], "M", marker="o")
    axes.set_ylabel("M")
    _counts_below(axes, bins, [each.thoughts for each in bins], "thoughts", paint, x, shares)


def accuracy(axes: Axes, bins: Sequence[PrefixBin], paint: Paint, *, shares: bool = False) -> None:
    """Accuracy by the number of thoughts kept, or their share."""
    _line(axes, bins, [each.accuracy for each in bins], paint[Ink.RIGHT], "accuracy", marker="o")
    _as_shares(axes, "accuracy")
    _counts_below(axes, bins, [each.chains for each in bins], "chains", paint, "thoughts kept", shares)


def tokens_by_count(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """Tokens of the prefix and of the chain it belongs to."""
    bins = statistics.prefixes_by_count
    _line(axes, bins, [each.whole for each in bins], paint[Ink.MUTED], "whole chain", style="--")
    _line(axes, bins, [each.tokens for each in bins], paint[Ink.LONG], "prefix")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("tokens")
    axes.legend(loc="best")
    _counts_below(axes, bins, [each.chains for each in bins], "chains", paint, "thoughts kept", shares=False)


def tokens_by_share(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """Share of a chain's tokens in the prefix, and what remains."""
    bins = statistics.prefixes_by_share
    shares = [each.share for each in bins]
    rest = [Interval(value=1 - each.value, low=1 - each.high, high=1 - each.low) for each in shares]
    _line(axes, bins, shares, paint[Ink.LONG], "prefix")
    _line(axes, bins, rest, paint[Ink.SHORT], "remaining", style="--")
    _as_shares(axes, "share of tokens")
    axes.legend(loc="center right")
    _counts_below(axes, bins, [each.chains for each in bins], "chains", paint, "thoughts kept", shares=True)


def survivors(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """Chains by the positions they reach, and the thoughts that stay long there."""
    edges = [0.5, *(each.position + 0.5 for each in statistics.survivors)]
    chains = [each.chains for each in statistics.survivors]
    axes.stairs(chains, edges, fill=True, color=paint[Ink.MUTED], alpha=0.35, label="chains")
    bins = statistics.importance_by_position
    widths = [each.span[1] - each.span[0] + 1 for each in bins]
    axes.bar(
        [sum(each.span) / 2 for each in bins],
        [each.kept / width for each, width in zip(bins, widths, strict=True)],
        widths,
        color=paint[Ink.LONG],
        label="stays long",
    )
    axes.set_ylabel("chains")
    axes.legend(loc="upper right")
    axes.set_xlabel("position of the thought in its chain")
    _integer_ticks(axes)


def per_chain(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """How many thoughts chains have, and below it how many of them stay long."""
    below = _axes_below(axes, (1, 1))
    for part, counted, colour, name in (
        (axes, statistics.thoughts_per_chain, paint[Ink.MUTED], "thoughts"),
        (below, statistics.kept_per_chain, paint[Ink.LONG], "of them long"),
    ):
        least, most = min(counted), max(counted)
        edges = np.linspace(least - 0.5, most + 0.5, min(most - least + 1, _MOST_BARS) + 1).tolist()
        part.hist(list(counted), edges, weights=list(counted.values()), color=colour, rwidth=0.85)
        part.set_xlabel(name)
        part.set_ylabel("chains")
        _integer_ticks(part)


def noise(axes: Axes, statistics: Statistics, paint: Paint) -> None:
    """Shares of decisions and penalties that flip more often than a threshold."""
    for field, ink, name, marker in (
        ("decisions", Ink.INK, "all decisions", "o"),
        ("kept", Ink.LONG, "to keep", "s"),
        ("compressed", Ink.SHORT, "to compress", "D"),
        ("delta", Ink.FOURTH, "δ", "^"),
    ):
        known = [(row.threshold, share) for row in statistics.noise if (share := getattr(row, field)) is not None]
        if known:
            at, shares = zip(*known, strict=True)
            axes.errorbar(
                at,
                [each.value for each in shares],
                yerr=_reach(shares),
                color=paint[ink],
                marker=marker,
                markersize=4,
                elinewidth=1,
                label=name,
            )
    _as_shares(axes, "share within noise")
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


def kinds(axes: Axes, rows: Sequence[Kind], paint: Paint) -> None:
    """M of the most frequent kinds of thought."""
    frequent = sorted(rows, key=lambda kind: -kind.thoughts)[:_MOST_KINDS]
    shown = [kind for kind in rows if kind in frequent][::-1]
    at = list(range(len(shown)))
    means = [kind.m for kind in shown]
    axes.axvline(0, color=paint[Ink.MUTED], linewidth=0.8)
    axes.errorbar([mean.value for mean in means], at, xerr=_reach(means), fmt="o", color=paint[Ink.LONG], markersize=4)
    # A kind may be any text: a dollar sign in it is no formula.
    axes.set_yticks(at, [shortened(kind.name, 26) for kind in shown], parse_math=False)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("M")
    right = axes.secondary_yaxis("right")
    right.set_yticks(at, [f"{kind.thoughts} · {kind.kept.value:.0%}" for kind in shown])
    for each in (axes, right):
        each.tick_params(axis="y", length=0)
    right.spines["right"].set_visible(False)


def _line(
    axes: Axes, bins: Bins, values: Sequence[Interval], colour: str, name: str, *, marker: str = "", style: str = "-"
) -> None:
    """Means with their intervals as a band."""
    at = [sum(each.span) / 2 for each in bins]
    axes.plot(at, [each.value for each in values], style, color=colour, marker=marker, markersize=3.5, label=name)
    low, high = [each.low for each in values], [each.high for each in values]
    axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)


def _counts_below(axes: Axes, bins: Bins, counts: Sequence[int], name: str, paint: Paint, x: str, shares: bool) -> None:
    """Bars under the axes: how much each mean rests on. Both have the same x, from 0 to 100 % with `shares`."""
    # Bars leave room between them; one for a single position stays narrow among those of shares.
    whole = bins[-1].span[1] > 1
    widths = [each.span[1] - each.span[0] + whole for each in bins]
    below = _axes_below(axes, (3.4, 1))
    below.sharex(axes)
    below.bar(
        [sum(each.span) / 2 for each in bins],
        counts,
        [0.75 * max(width, 0.2 * max(widths)) for width in widths],
        color=paint[Ink.MUTED],
        alpha=0.6,
    )
    below.set_ylabel(name)
    below.set_yticks([0, max(counts)])
    below.grid(visible=False)
    axes.tick_params(axis="x", labelbottom=False)
    below.set_xlabel(x)
    if shares:
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.set_xlim(-0.04, 1.04)
    else:
        _integer_ticks(axes)


def _axes_below(axes: Axes, heights: tuple[float, float]) -> Axes:
    """New axes below these, which shrink to make room."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "a figure's axes"
    grid = figure.add_gridspec(2, 1, height_ratios=heights)
    axes.set_subplotspec(grid[0])
    return figure.add_subplot(grid[1], facecolor="none")


def _as_shares(axes: Axes, text: str) -> None:
    """y from 0 to 100 %."""
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set_ylabel(text)


def _integer_ticks(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def _reach(values: Sequence[Interval]) -> np.ndarray:
    """How far the intervals reach below and above, [2, n]."""
    sides = [(each.value - each.low, each.high - each.value) for each in values]
    return np.clip(np.nan_to_num(np.array(sides)), 0, None).T
