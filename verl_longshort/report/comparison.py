"""The section that puts the measured rounds beside the ones that the paper published, never mixing the two.

Lengths and problems differ, so both sides are given relative to their own base: change of accuracy, share of
the base's length, and AES.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes

from verl_longshort.evaluation.paper import (
    BENCHMARKS,
    SOURCE,
    PublishedResult,
    backbones,
    published,
    published_results,
)
from verl_longshort.evaluation.published import other_tables
from verl_longshort.problems.benchmarks import title
from verl_longshort.report.evaluations import rounds_of
from verl_longshort.report.page import Section, fragment
from verl_longshort.report.results import Group, Spread, tables
from verl_longshort.report.run_dir import Run
from verl_longshort.report.svg import Ink, captioned, legend_below, plot

MARKERS = ("D", "s")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measured pair relative to the run's base, over the runs."""

    accuracy_change: Spread | None
    """In percentage points."""
    length_ratio: Spread | None
    score: Spread | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One pair, measured and published; either may be missing."""

    name: str
    measured: Measured | None
    published: Sequence[PublishedResult | None]
    """By backbone."""


def comparison_section(runs: Sequence[Run]) -> Section:
    """Measured and published rounds side by side, all that the paper published, and what other methods did."""
    rows = comparison_rows(runs)
    label = "AES over the rounds, measured and published"
    picture = plot(partial(_draw_scores, rows), name="aes-rounds", label=label, height=3.4)
    caption = "AES over the rounds. Different models and problems: compare the shape, not the height."
    context = {
        "rows": rows,
        "backbones": backbones(),
        "benchmarks": {name: title(name) for name in BENCHMARKS},
        "all_published": published_results(),
        "source": SOURCE,
        "others": other_tables(),
        "base": next((table.base for table in tables(runs)), None),
        "several": len(runs) > 1,
        "any_measured": any(row.measured for row in rows),
        "picture": captioned(picture, caption),
    }
    return Section(id="paper", title="Beside the paper", body=fragment("comparison.html.jinja", context))


def comparison_rows(runs: Sequence[Run]) -> list[Row]:
    """A row for every pair of rounds that was measured (on the first data set) or published."""
    groups = {group.name: group for table in tables(runs)[:1] for group in table.groups}
    names = {*groups, *(result.method for result in published_results())}
    places = {name: rounds for name in names if (rounds := rounds_of(name))}
    return [
        Row(
            name=name,
            measured=_measured(groups[name]) if name in groups else None,
            published=[published(backbone, name) for backbone in backbones()],
        )
        for name in sorted(places, key=lambda name: (sum(places[name]), places[name]))
    ]


def _measured(group: Group) -> Measured:
    pairs = [(line.summary, line.base.summary) for line in group.lines if line.base]
    return Measured(
        accuracy_change=Spread.of([100 * (own.accuracy.value - base.accuracy.value) for own, base in pairs]),
        length_ratio=Spread.of(
            [own.tokens.value / base.tokens.value if base.tokens.value else None for own, base in pairs]
        ),
        score=group.score,
    )


def _draw_scores(rows: Sequence[Row], axes: Axes) -> None:
    axes.axhline(0, color=Ink.MUTED.value, linewidth=0.8)
    for index, backbone in enumerate(backbones()):
        points = [(i, result.published_aes) for i, row in enumerate(rows) if (result := row.published[index])]
        axes.plot(
            *zip(*points, strict=True),
            color=Ink.PUBLISHED.value,
            label=f"published, {backbone}",
            linestyle="--",
            linewidth=1.1,
            marker=MARKERS[index],
            markersize=4,
        )
    ours = [(i, row.measured.score) for i, row in enumerate(rows) if row.measured and row.measured.score]
    if ours:
        places, spreads = zip(*ours, strict=True)
        axes.plot(places, [s.mean for s in spreads], color=Ink.PAIR.value, marker="o", label="measured here")
        axes.vlines(places, [s.low for s in spreads], [s.high for s in spreads], color=Ink.PAIR.value)
    axes.set_xticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylabel("AES")
    legend_below(axes, columns=2)
    axes.grid(visible=False, axis="x")
