"""Accuracy against tokens: every evaluation, the pairs from closer, and accuracy under a token budget."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import cycle

from markupsafe import Markup
from matplotlib.axes import Axes

from verl_longshort.report.page import Section
from verl_longshort.report.results import DataTable, Group, tables
from verl_longshort.report.run_dir import Run
from verl_longshort.report.svg import Ink, captioned, legend_below, plot, shortened

HEIGHT = 3.4
LINE_HEIGHT = 0.16
"""Inches that a name needs."""
DASHES = ("-", "--", ":", "-.")


def scatter_section(runs: Sequence[Run]) -> Section | None:
    """The plots of each data set; None when nothing is measured."""
    found = tables(runs)
    if not found:
        return None
    body = Markup("").join(_pictures(table, number) for number, table in enumerate(found))
    return Section(id="accuracy-tokens", title="Accuracy against tokens", body=body)


def spread_apart(values: Sequence[float], gap: float) -> list[float]:
    """The values moved as little as need be, in their order, so that neighbours are `gap` apart; of equal
    ones the first ends highest.
    """
    order = sorted(range(len(values)), key=lambda i: (values[i], -i))
    blocks: list[tuple[list[int], float]] = []
    for index in order:
        members, middle = [index], values[index]
        while blocks and blocks[-1][1] + gap * (len(blocks[-1][0]) + len(members)) / 2 > middle:
            before, _ = blocks.pop()
            members = before + members
            middle = sum(values[i] for i in members) / len(members)
        blocks.append((members, middle))
    placed = [0.0] * len(values)
    for members, middle in blocks:
        for rank, index in enumerate(members):
            placed[index] = middle + gap * (rank - (len(members) - 1) / 2)
    return placed


def _pictures(table: DataTable, number: int) -> Markup:
    several = max(len(group.lines) for group in table.groups) > 1
    marks = "Small dots are runs, large ones means." if several else "Bars are 95 % intervals over problems."
    rounds = [group for group in table.groups if group.rounds is not None]
    budgets = "Share of answers that are correct and have at most so many tokens."
    drawn = [
        (_draw, table.groups, f"{table.data}: everything", f"{marks} Up and to the left is better."),
        (_draw, rounds, f"{table.data}: the rounds", f"{marks} The line follows the training."),
        (_draw_budgets, table.groups, f"{table.data}: accuracy within a token budget", budgets),
    ]
    pictures = [
        captioned(
            plot(
                partial(draw, groups, title),
                name=f"scatter-{number}-{place}",
                label=f"Accuracy against tokens, {title}",
                height=HEIGHT,
            ),
            caption,
        )
        for place, (draw, groups, title, caption) in enumerate(drawn)
        if groups
    ]
    return Markup('<div class="plots">{}</div>').format(Markup("").join(pictures))


def _draw(groups: Sequence[Group], title: str, axes: Axes) -> None:
    rounds = [group for group in groups if group.rounds is not None]
    points = {}
    for group in groups:
        assert group.tokens is not None, "every evaluation has a mean of its tokens"
        assert group.accuracy is not None, "every evaluation has an accuracy"
        points[group.name] = (group.tokens.mean, 100 * group.accuracy.mean)
    if rounds:
        path = zip(*(points[group.name] for group in rounds), strict=True)
        axes.plot(*path, color=Ink.PAIR.value, linewidth=1, alpha=0.45, zorder=1)
    for group in groups:
        _draw_group(axes, group, points[group.name])
    axes.set_title(title)
    axes.set_xlabel("tokens per answer")
    axes.set_ylabel("accuracy, %")
    _name(axes, points)


def _draw_group(axes: Axes, group: Group, point: tuple[float, float]) -> None:
    ink = Ink.MUTED if group.is_alone else Ink.PAIR
    several = len(group.lines) > 1
    for line in group.lines:
        tokens, accuracy = line.summary.tokens, line.summary.accuracy
        x, y = tokens.value, 100 * accuracy.value
        if several:
            axes.plot(x, y, "o", color=ink.value, markersize=3, alpha=0.55)
        else:
            axes.plot([tokens.low, tokens.high], [y, y], color=ink.value, linewidth=1, alpha=0.6)
            axes.plot([x, x], [100 * accuracy.low, 100 * accuracy.high], color=ink.value, linewidth=1, alpha=0.6)
    axes.plot(*point, "o", color=ink.value, markersize=5.5, zorder=3)


def _name(axes: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Write each name to the right of its point; names that would meet go one below the other."""
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    wide, gap = 0.16 * (right - left), (high - low) * LINE_HEIGHT / (HEIGHT * 0.76)
    for cluster in _clusters(points, wide):
        heights = spread_apart([points[name][1] for name in cluster], gap)
        too_high = max(0.0, max(heights) - (high - gap / 2))
        column = max(points[name][0] for name in cluster) + 0.05 * (right - left)
        for name, height in zip(cluster, heights, strict=True):
            axes.annotate(
                shortened(name),
                points[name],
                xytext=(column, height - too_high),
                verticalalignment="center",
                arrowprops={"arrowstyle": "-", "color": Ink.MUTED.value, "linewidth": 0.5, "shrinkB": 3},
                bbox={"facecolor": Ink.SURFACE.value, "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
                fontsize=8,
                zorder=4,
            )
    axes.set_xlim(left, right + 0.16 * (right - left))
    axes.set_ylim(low, high)


def _clusters(points: dict[str, tuple[float, float]], wide: float) -> list[list[str]]:
    found: list[list[str]] = []
    for name in sorted(points, key=lambda name: points[name][0]):
        if found and points[name][0] - points[found[-1][-1]][0] < wide:
            found[-1].append(name)
        else:
            found.append([name])
    return found


def _draw_budgets(groups: Sequence[Group], title: str, axes: Axes) -> None:
    """Models alone in grey; of the rounds the first and the last, which is what changed."""
    rounds = [group for group in groups if group.rounds is not None]
    styles = [(group, Ink.PAIR, "-") for group in rounds[1:][-1:]]
    styles += [(group, Ink.FOURTH, "-") for group in rounds[:1]]
    alone = [group for group in groups if group.is_alone]
    styles += [(group, Ink.MUTED, dashes) for group, dashes in zip(alone, cycle(DASHES), strict=False)]
    curves = [_budgets(group) for group, _, _ in styles]
    largest = max((budget for curve in curves for budget in curve), default=1)
    for (group, ink, dashes), curve in zip(styles, curves, strict=True):
        # With a larger budget than any answer needs nothing changes any more.
        whole = {**curve, largest: curve[max(curve)]}
        axes.plot(list(whole), list(whole.values()), color=ink.value, linestyle=dashes, label=group.name)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title(title)
    axes.set_xlabel("token budget")
    axes.set_ylabel("accuracy, %")
    legend_below(axes)


def _budgets(group: Group) -> dict[int, float]:
    found: dict[int, list[float]] = defaultdict(list)
    for line in group.lines:
        for budget, correct in line.summary.accuracy_at_budget.items():
            found[budget].append(100 * correct)
    return {budget: sum(found[budget]) / len(found[budget]) for budget in sorted(found)}
