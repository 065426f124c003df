"""matplotlib figures as inline SVG in the colours of the page, light and dark.

Draw with the colours of `Ink`: in the SVG each becomes the CSS variable of that name, so that one picture
serves both schemes. Text stays text, in the font of the page.
"""

import io
import re
from collections.abc import Callable
from typing import Any

from longshort_reward.compat import StrEnum
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure


class Ink(StrEnum):
    """Colours to draw with; each stands for a variable of `page.css`."""

    INK = "#010101"
    MUTED = "#020202"
    LINE = "#030303"
    SURFACE = "#040404"
    LONG = "#050505"
    SHORT = "#060606"
    PAIR = "#070707"
    RIGHT = "#080808"
    WRONG = "#090909"
    PUBLISHED = "#0a0a0a"
    LONG_SOFT = "#0b0b0b"
    SHORT_SOFT = "#0c0c0c"
    FOURTH = "#0d0d0d"

    @property
    def variable(self) -> str:
        """As CSS."""
        return f"var(--{self.name.lower().replace('_', '-')})"


STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": str(Ink.INK),
    "axes.labelcolor": str(Ink.MUTED),
    "axes.edgecolor": str(Ink.LINE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": str(Ink.LINE),
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "text.color": str(Ink.INK),
    "xtick.color": str(Ink.LINE),
    "ytick.color": str(Ink.LINE),
    "xtick.labelcolor": str(Ink.MUTED),
    "ytick.labelcolor": str(Ink.MUTED),
    "legend.frameon": False,
    "legend.labelcolor": str(Ink.INK),
    # A dollar sign in a name is no formula.
    "text.parse_math": False,
}


def plot(draw: Callable[[Axes], None], *, name: str, label: str, width: float = 4.2, height: float = 2.6) -> Markup:
    """What `draw` draws on empty axes, as `<svg>` as wide as what it stands in.

    `name` must be the plot's alone in the page, `label` is what a screen reader says. Sizes in inches: at 4.2
    the text is readable on a phone.
    """
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        for background in (figure.patch, axes.patch):
            background.set_alpha(0)
        draw(axes)
        raw = io.StringIO()
        unset = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(raw, format="svg", metadata=unset)
    return _inline(raw.getvalue(), name, label)


def legend_below(axes: Axes, *, columns: int = 4) -> None:
    """A legend under the plot, where it can hide nothing."""
    handles, names = axes.get_legend_handles_labels()
    labels = [shortened(str(name)) for name in names]
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes to draw on belong to a figure"
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(columns, len(labels)),
        fontsize=8,
        handlelength=1.5,
        columnspacing=1.2,
        handletextpad=0.5,
        borderpad=0.1,
    )


def shortened(name: str, length: int = 22) -> str:
    """A name that a plot has room for."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def captioned(svg: Markup, caption: str) -> Markup:
    """The plot with a caption below, for a `<div class="plots">`."""
    return Markup('<figure class="plain">{}<figcaption>{}</figcaption></figure>').format(svg, caption)


def _inline(text: str, name: str, label: str) -> Markup:
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None, "matplotlib gives every SVG its view box"
    body = text[text.index(">", text.index("<svg")) + 1 :].replace("xlink:href", "href")
    # What a page must hold once only, or not at all: metadata, rules for all elements, fonts of its own.
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"font: (\d+ )?([\d.]+px)[^;\"]*", _font, body)
    body = re.sub(r"font-family: [^;\"]*;?", "", body)
    for ink in Ink:
        body = body.replace(ink.value, ink.variable)
    # Names inside the plot (clip paths, markers) must not meet those of another one.
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    return Markup('<svg class="plot" role="img" aria-label="{}" {}>{}').format(
        label, Markup(view.group()), Markup(body)
    )


def _font(found: re.Match[str]) -> str:
    weight = f"font-weight: {found.group(1).strip()}; " if found.group(1) else ""
    return f"{weight}font-size: {found.group(2)}"
