"""The figures of the report: each drawn once, saved as PNG or as SVG in the colours of a page.

`FIGURES` names them all. Colours come from a `Paint`, since SVG and PNG need different ones.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from verl_longshort.report.importance import drawing
from verl_longshort.report.importance.drawing import Paint
from verl_longshort.report.importance.statistics import Statistics
from verl_longshort.report.page import asset
from verl_longshort.report.svg import STYLE, Ink, captioned, plot

DPI = 160
_WIDTH = 4.2


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One figure: `draw` puts it on empty axes."""

    name: str
    title: str
    caption: str
    draw: Callable[[Axes, Statistics, Paint], None]
    height: float = 2.9
    there: Callable[[Statistics], bool] = lambda statistics: True
    """Whether the records have anything to show in it."""


_POSITION = "Mean with 95 % interval; the bars below count the thoughts that are there."
_PREFIX = "With 95 % interval; the bars below count the chains that are there."

FIGURES: tuple[Drawing, ...] = (
    Drawing(
        name="importance_by_position",
        title="M by position",
        caption=f"{_POSITION} Later positions exist in long chains only.",
        draw=lambda axes, s, paint: drawing.importance(
            axes, s.importance_by_position, paint, "position of the thought in its chain"
        ),
    ),
    Drawing(
        name="importance_by_share",
        title="M by relative position",
        caption=f"{_POSITION} The last thought of a chain has 0 or −δ by its formula.",
        draw=lambda axes, s, paint: drawing.importance(
            axes, s.importance_by_share, paint, "position of the thought, from first to last", shares=True
        ),
    ),
    Drawing(
        name="accuracy_by_count",
        title="Accuracy by thoughts kept",
        caption=f"p̂ of the first i thoughts. {_PREFIX}",
        draw=lambda axes, s, paint: drawing.accuracy(axes, s.prefixes_by_count, paint),
    ),
    Drawing(
        name="accuracy_by_share",
        title="Accuracy by share of thoughts kept",
        caption=f"p̂ from the problem alone (0 %) to the whole chain (100 %). {_PREFIX}",
        draw=lambda axes, s, paint: drawing.accuracy(axes, s.prefixes_by_share, paint, shares=True),
    ),
    Drawing(
        name="tokens_by_count",
        title="Tokens by thoughts kept",
        caption="The prefix, and the whole chains it is part of: what lies between remains.",
        draw=drawing.tokens_by_count,
    ),
    Drawing(
        name="tokens_by_share",
        title="Share of tokens by share of thoughts kept",
        caption="Of the whole chain: in the prefix, and what remains after it.",
        draw=drawing.tokens_by_share,
    ),
    Drawing(
        name="survivors",
        title="Chains that reach a position",
        caption="And in how many of them the thought there stays long under the rule.",
        draw=drawing.survivors,
    ),
    Drawing(
        name="per_chain",
        title="Thoughts per chain",
        caption="All of them, and those that stay long under the rule.",
        draw=drawing.per_chain,
        height=3.2,
    ),
    Drawing(
        name="noise",
        title="Decisions within noise",
        caption="Share more likely to flip than the threshold, with 95 % interval. First thoughts are left "
        "out: nothing is decided there. Flips are those of the rule m.",
        height=3.1,
        draw=drawing.noise,
        there=lambda statistics: bool(statistics.noise),
    ),
    Drawing(
        name="gaps",
        title="Bound and gap",
        caption="What decides is the gap |M − highest M before|. Where the bound is larger, the bound cannot "
        "settle the decision.",
        draw=drawing.gaps,
        there=lambda statistics: statistics.bound is not None,
    ),
    Drawing(
        name="kinds",
        title="M by kind of thought",
        caption="As the chunker gave it; number of thoughts, and share that stays long.",
        draw=lambda axes, s, paint: drawing.kinds(axes, s.kinds, paint),
        there=lambda statistics: len(statistics.kinds) > 1,
    ),
    Drawing(
        name="labels",
        title="M by the generator's kind",
        caption="As the generator of the chains labelled it; number of thoughts, and share that stays long.",
        draw=lambda axes, s, paint: drawing.kinds(axes, s.labels, paint),
        there=lambda statistics: bool(statistics.labels),
    ),
)


def inline(statistics: Statistics) -> dict[str, Markup]:
    """The figures that these statistics have something for, with captions for a page, by name."""
    paint = {ink: ink.value for ink in Ink}
    return {
        figure.name: captioned(
            plot(
                partial(_draw, figure, statistics, paint),
                name=f"importance-{figure.name}".replace("_", "-"),
                label=f"{figure.title}. {figure.caption}",
                width=_WIDTH,
                height=figure.height,
            ),
            figure.caption,
        )
        for figure in FIGURES
        if figure.there(statistics)
    }


def write_png(statistics: Statistics, folder: Path) -> None:
    """Write the same figures as `<folder>/<name>.png`, in the light colours of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    paint = light_colours()
    with rc_context({key: paint.get(value, value) for key, value in STYLE.items()}):
        for figure in FIGURES:
            if figure.there(statistics):
                canvas = Figure(figsize=(_WIDTH, figure.height), layout="constrained", facecolor=paint[Ink.SURFACE])
                _draw(figure, statistics, paint, canvas.add_subplot(facecolor=paint[Ink.SURFACE]))
                canvas.savefig(folder / f"{figure.name}.png", dpi=DPI)


def light_colours() -> Paint:
    """What the colours of `Ink` are in the light scheme of `page.css`."""
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", asset("page.css").split("@media", 1)[0]))
    return {ink: found[ink.variable.removeprefix("var(--").removesuffix(")")] for ink in Ink}


def _draw(figure: Drawing, statistics: Statistics, paint: Paint, axes: Axes) -> None:
    axes.set_title(figure.title)
    figure.draw(axes, statistics, paint)
