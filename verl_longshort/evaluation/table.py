"""Several evaluations on the same problems as one table: on the terminal, as Markdown and as JSON.

`show_table(files)` is the command. Rows stand in the order of the files; files of the same name, about other
benchmarks, are one row. AES is relative to one of the rows, the base. Of several benchmarks, accuracy, length
and AES are means over the benchmarks, as in the paper. The detailed table has a line for each row and
benchmark.
"""

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from verl_longshort.base.files import Record, write_json, write_text
from verl_longshort.base.journal import read_record_file
from verl_longshort.evaluation.metrics import Interval, mean_score_interval
from verl_longshort.evaluation.summary import Figures, Summary, by_benchmark, columns, summarise
from verl_longshort.problems.benchmarks import title

NONE = "–"
_SHOWN_OF_RUN = (
    *("date", "version", "mode", "models", "benchmarks", "samples", "temperature", "top_p", "seed"),
    *("option_seed", "limits", "max_num_seqs", "aha_markers"),
)
_Loaded = tuple[dict[str, Any], list[Record]]


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


def show_table(
    files: Sequence[Path],
    *,
    base: str | None,
    markdown: Path | None,
    json_file: Path | None,
    console: Console,
    detailed: bool = False,
    text: Path | None = None,
) -> list[TableRow]:
    """Print the table of the record files `files` and write it as text, Markdown and JSON where asked.

    `base` is the name of the row that AES is relative to; None: the first. Raises UserError for files that
    are missing, unfinished or of different problems, and for a base that is not among them.
    """
    rows = load_rows(files, base)
    tables = _tables(rows, detailed)
    shown = io.StringIO()
    for screen in (console, Console(file=shown, width=240 if detailed else 120)):
        for cells in tables:
            screen.print(as_table(cells))
        screen.print(caption(rows), style="dim", highlight=False)
    if text is not None:
        write_text(text, shown.getvalue())
    if markdown is not None:
        write_text(markdown, as_markdown(rows, detailed=detailed))
    if json_file is not None:
        write_json(json_file, [row.to_json() for row in rows])
    return rows


def load_rows(files: Sequence[Path], base: str | None) -> list[TableRow]:
    """The rows of the record files, in their order."""
    if not files:
        raise UserError("files", "none", "give the .jsonl files of at least one evaluation")
    by_name = _joined(files)
    first, *others = by_name
    for name in others:
        if problems_of(*by_name[name]) != problems_of(*by_name[first]):
            raise UserError("files", name, f"is about other problems than {first}: evaluate on the same data")
    base = first if base is None else base
    if base not in by_name:
        raise UserError("base", base, f"is none of the rows: {', '.join(by_name)}")
    return [
        TableRow(
            summary=summarise(name, records),
            score=score(records, by_name[base][1]),
            is_base=name == base,
            header=header,
        )
        for name, (header, records) in by_name.items()
    ]


def score(records: Sequence[Record], base: Sequence[Record]) -> Interval | None:
    """AES of records against those of a base on the same problems; None when the base has no correct answer."""
    if not any(record["correct"] for record in base):
        return None
    if records is base:
        return Interval(value=0.0, low=math.nan, high=math.nan)
    own, theirs = by_benchmark(records), by_benchmark(base)
    return mean_score_interval([columns(groups) for groups in own.values()], [columns(theirs[name]) for name in own])


def as_table(cells: Cells) -> Table:
    """Cells for a terminal."""
    table = Table(*cells.headings, box=SIMPLE_HEAD)
    for number, column in enumerate(table.columns):
        # A narrow terminal may break a number from its interval, but never loses one.
        column.overflow = "fold"
        column.justify = "left" if number < cells.names else "right"
    for line in cells.lines:
        table.add_row(*line)
    return table


def as_markdown(rows: Sequence[TableRow], *, detailed: bool = False) -> str:
    """The rows as Markdown tables with what they are about."""
    return "\n".join([*map(cells_as_markdown, _tables(rows, detailed)), f"{caption(rows)}\n"])


def cells_as_markdown(cells: Cells) -> str:
    """Cells as a Markdown table, ended by a line break."""
    rule = ["---" if number < cells.names else "---:" for number in range(len(cells.headings))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (cells.headings, rule, *cells.lines))


def overview(rows: Sequence[TableRow]) -> Cells:
    """Accuracy (on each benchmark, where there are several), tokens, AES, turns, share of rethinks."""
    benchmarks = list(rows[0].summary.benchmarks) if len(rows[0].summary.benchmarks) > 1 else []
    accuracy = "mean %" if benchmarks else "accuracy %"
    headings = ("", *map(title, benchmarks), accuracy, "tokens", "AES", "turns", "rethink %")
    lines = [
        (
            row.summary.name,
            *(_percent(row.summary.benchmarks[name].accuracy.value) for name in benchmarks),
            _shown(row.summary.accuracy, _percent),
            _shown(row.summary.tokens, _number),
            _shown(row.score, lambda value: f"{value:+.2f}"),
            f"{row.summary.turns:.2f}",
            _percent(row.summary.rethink_rate),
        )
        for row in rows
    ]
    return Cells(headings=headings, lines=lines, names=1)


def details(summaries: Sequence[Summary]) -> Cells:
    """All figures with their intervals, a line for each evaluation and benchmark."""
    shown = _columns(max(summary.samples for summary in summaries))
    lines = [
        (summary.name, title(name), *(show(figures) for show in shown.values()))
        for summary in summaries
        for name, figures in summary.benchmarks.items()
    ]
    return Cells(headings=("", "", *shown), lines=lines, names=2)


def caption(rows: Sequence[TableRow]) -> str:
    """What the numbers are about: problems, samples, seeds, temperature, intervals and dates."""
    summary, headers = rows[0].summary, [row.header for row in rows]
    base = next((row.summary.name for row in rows if row.is_base), NONE)
    samples = sorted({figures.samples for row in rows for figures in row.summary.benchmarks.values()})
    each = "one answer each" if samples == [1] else f"{' or '.join(map(str, samples))} answers each"
    scored = any(row.score for row in rows)
    parts = [
        f"{summary.problems} problems, {each}",
        f"temperature {_distinct(headers, 'temperature')}, seed {_distinct(headers, 'seed')}",
        f"AES relative to {base}" if scored else f"no AES: {base}, its base, has no correct answer (another: --base)",
        "in brackets 95 % intervals over problems",
        f"evaluated on {_distinct(headers, 'date')}",
    ]
    return "; ".join(parts)


def _tables(rows: Sequence[TableRow], detailed: bool) -> list[Cells]:
    return [overview(rows), details([row.summary for row in rows])] if detailed else [overview(rows)]


def _joined(files: Sequence[Path]) -> dict[str, _Loaded]:
    """The files by name; those of one name joined, as if their benchmarks had been evaluated together."""
    rows: dict[str, _Loaded] = {}
    for file in files:
        header, records = read_record_file(file)
        if "benchmarks" not in header:
            raise UserError("files", file, "is no record file of longshort eval, or one of an earlier version")
        expected = header["problems"] * header["samples"]
        if len(records) != expected:
            raise UserError("files", file, f"has {len(records)} of {expected} answers: run longshort eval again")
        name = header["name"]
        if name in rows:
            before, known = rows[name]
            if {record["benchmark"] for record in records} & {record["benchmark"] for record in known}:
                raise UserError("files", file, f"is a second file of {name} about the same benchmark")
            header = {**before, "benchmarks": [*before["benchmarks"], *header["benchmarks"]]}
            records = [*known, *records]
        rows[name] = (header, records)
    return rows


def problems_of(header: Mapping[str, Any], records: Sequence[Record]) -> dict[tuple[str, int], str]:
    """The text of each problem, by benchmark and number, without the template that it was asked in.

    So evaluations whose prompts differ, such as those of a pair and of a chat model, are about the same problems.
    """
    before, _, after = header.get("template", "{problem}").partition("{problem}")
    return {
        (record["benchmark"], record["problem_index"]): record["problem"].removeprefix(before).removesuffix(after)
        for record in records
    }


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
