"""What several figures are made of: lines with bands, counts below the axes, kinds of axes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from verl_longshort.evaluation.metrics import Interval
from verl_longshort.report.importance.positions import Span
from verl_longshort.report.svg import Ink

Paint = Mapping[Ink, str]
"""A colour for each of the page's."""


def line(
    axes: Axes,
    spans: Sequence[Span],
    values: Sequence[Interval],
    colour: str,
    name: str,
    *,
    marker: str = "",
    dashed: bool = False,
) -> None:
    """Means with their intervals as a band."""
    at = [sum(span) / 2 for span in spans]
    style = "--" if dashed else "-"
    means, low, high = ([getattr(each, side) for each in values] for side in ("value", "low", "high"))
    axes.plot(at, means, style, color=colour, marker=marker, markersize=3.5, label=name)
    axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)


def counts_below(axes: Axes, spans: Sequence[Span], counts: Sequence[int], name: str, paint: Paint) -> Axes:
    """Bars under the axes, on the same x: how much each mean rests on."""
    below = axes_below(axes, (3.4, 1))
    below.sharex(axes)
    below.bar([sum(span) / 2 for span in spans], counts, _widths(spans), color=paint[Ink.MUTED], alpha=0.6)
    below.set_ylabel(name)
    below.set_yticks([0, max(counts)])
    below.grid(visible=False)
    axes.tick_params(axis="x", labelbottom=False)
    return below


def axes_below(axes: Axes, heights: tuple[float, float]) -> Axes:
    """New axes below these, which shrink to make room."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "a figure's axes"
    grid = figure.add_gridspec(2, 1, height_ratios=heights)
    axes.set_subplotspec(grid[0])
    return figure.add_subplot(grid[1], facecolor="none")


def _widths(spans: Sequence[Span]) -> list[float]:
    """Bars with room between them; narrow ones for bins of a single place among shares."""
    whole = spans[-1][1] > 1
    widest = max(end - start for start, end in spans) + whole
    return [0.75 * max(end - start + whole, 0.2 * widest) for start, end in spans]


def by_count(axes: Axes, below: Axes, text: str) -> None:
    """x in whole numbers, named under the counts."""
    below.set_xlabel(text)
    whole_numbers(axes)


def by_share(axes: Axes, below: Axes, text: str) -> None:
    """x from 0 to 100 %, named under the counts."""
    below.set_xlabel(text)
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set_xlim(-0.04, 1.04)


def as_shares(axes: Axes, text: str) -> None:
    """y from 0 to 100 %."""
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set_ylabel(text)


def whole_numbers(axes: Axes) -> None:
    """Ticks of x at whole numbers only."""
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def reach(values: Sequence[Interval]) -> np.ndarray:
    """How far the intervals reach below and above, [2, n]."""
    sides = [(each.value - each.low, each.high - each.value) for each in values]
    return np.clip(np.nan_to_num(np.array(sides)), 0, None).T
