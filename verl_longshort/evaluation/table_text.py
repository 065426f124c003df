"""A row of the table and its texts: one line per evaluation, or per evaluation and benchmark, and the caption."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_longshort.evaluation.metrics import Interval
from verl_longshort.evaluation.summary import Figures, Summary
from verl_longshort.problems.benchmarks import title

NONE = "–"
_SHOWN_OF_RUN = (
    *("date", "version", "mode", "models", "benchmarks", "samples", "temperature", "top_p", "seed"),
    *("option_seed", "limits", "max_num_seqs", "aha_markers"),
)


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One evaluation in the table."""

    summary: Summary
    score: Interval | None
    """AES; None when the base has no correct answer."""
    is_base: bool
    header: Mapping[str, Any]
    """The first line of the records: how they were made."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        run = {key: self.header[key] for key in _SHOWN_OF_RUN if key in self.header}
        return {**self.summary.to_json(), "aes": self.score.to_json() if self.score else None, "run": run}


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A table as texts."""

    headings: Sequence[str]
    lines: Sequence[Sequence[str]]
    names: int
    """How many columns at the left hold names, not numbers."""


def overview(rows: Sequence[TableRow]) -> Cells:
    """Accuracy (on each benchmark, where there are several), tokens, AES, turns, share of rethinks."""
    benchmarks = list(rows[0].summary.benchmarks) if len(rows[0].summary.benchmarks) > 1 else []
    accuracy = "mean %" if benchmarks else "accuracy %"
    headings = ("", *map(title, benchmarks), accuracy, "tokens", "AES", "turns", "rethink %")
    return Cells(headings=headings, lines=[_overview(row, benchmarks) for row in rows], names=1)


def details(rows: Sequence[TableRow]) -> Cells:
    """All figures with their intervals, a line for each evaluation and benchmark."""
    columns = _columns(max(row.summary.samples for row in rows))
    lines = [
        (row.summary.name, title(name), *(show(figures) for show in columns.values()))
        for row in rows
        for name, figures in row.summary.benchmarks.items()
    ]
    return Cells(headings=("", "", *columns), lines=lines, names=2)


def caption(rows: Sequence[TableRow]) -> str:
    """What the numbers are about: problems, samples, seeds, temperature, intervals and dates."""
    summary, headers = rows[0].summary, [row.header for row in rows]
    base = next((row.summary.name for row in rows if row.is_base), NONE)
    samples = sorted({figures.samples for row in rows for figures in row.summary.benchmarks.values()})
    each = "one answer each" if samples == [1] else f"{' or '.join(map(str, samples))} answers each"
    parts = [
        f"{summary.problems} problems, {each}",
        f"temperature {_distinct(headers, 'temperature')}, seed {_distinct(headers, 'seed')}",
        f"AES relative to {base}",
        "in brackets 95 % intervals over problems",
        f"evaluated on {_distinct(headers, 'date')}",
    ]
    return "; ".join(parts)


def _overview(row: TableRow, benchmarks: Sequence[str]) -> tuple[str, ...]:
    summary = row.summary
    return (
        summary.name,
        *(_percent(summary.benchmarks[name].accuracy.value) for name in benchmarks),
        _shown(summary.accuracy, _percent),
        _shown(summary.tokens, _number),
        _shown(row.score, lambda value: f"{value:+.2f}"),
        f"{summary.turns:.2f}",
        _percent(summary.rethink_rate),
    )


def _columns(samples: int) -> dict[str, Callable[[Figures], str]]:
    several: dict[str, Callable[[Figures], str]] = {
        "pass@k": lambda figures: _shown(figures.pass_at.get(figures.samples), _percent),
        "maj@k": lambda figures: _shown(figures.majority, _percent),
    }
    return {
        "problems": lambda figures: str(figures.problems),
        "k": lambda figures: str(figures.samples),
        "avg@k %": lambda figures: _shown(figures.accuracy, _percent),
        **(several if samples > 1 else {}),
        "tokens": lambda figures: _shown(figures.tokens, _number),
        "by role": lambda figures: " + ".join(map(_number, figures.tokens_by_role.values())),
        "correct": lambda figures: _number(figures.tokens_right),
        "incorrect": lambda figures: _number(figures.tokens_wrong),
        "turns": lambda figures: f"{figures.turns:.2f}",
        "rethinks": lambda figures: f"{figures.rethinks:.2f}",
        "aha %": lambda figures: _percent(figures.aha_rate),
        "s p50": lambda figures: f"{figures.seconds['p50']:.1f}",
        "s p95": lambda figures: f"{figures.seconds['p95']:.1f}",
    }


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _number(value: float | Interval | None) -> str:
    value = value.value if isinstance(value, Interval) else value
    return NONE if value is None else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _shown(interval: Interval | None, text: Callable[[float], str]) -> str:
    if interval is None:
        return NONE
    known = not math.isnan(interval.low)
    return text(interval.value) + (f" [{text(interval.low)}, {text(interval.high)}]" if known else "")


def _distinct(headers: Iterable[Mapping[str, Any]], key: str) -> str:
    return ", ".join(map(str, sorted({header.get(key, NONE) for header in headers}, key=str)))
