"""Several evaluations on the same problems as one table: on the terminal, as Markdown and as JSON.

`show_table(files)` is the command. Rows stand in the order of the files; files of the same name, about other
benchmarks, are one row. AES is relative to one of the rows, the base. Of several benchmarks, accuracy, length
and AES are means over the benchmarks, as in the paper. The detailed table has a line for each row and
benchmark.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from verl_longshort.base.files import Record, write_json, write_text
from verl_longshort.base.journal import read_record_file
from verl_longshort.evaluation.metrics import Interval, mean_score_interval
from verl_longshort.evaluation.summary import by_benchmark, columns, summarise
from verl_longshort.evaluation.table_text import Cells, TableRow, caption, details, overview

_Loaded = tuple[dict[str, Any], list[Record]]


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
        if _problems(by_name[name][1]) != _problems(by_name[first][1]):
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
    return "\n".join([*map(_markdown, _tables(rows, detailed)), f"{caption(rows)}\n"])


def _tables(rows: Sequence[TableRow], detailed: bool) -> list[Cells]:
    return [overview(rows), details(rows)] if detailed else [overview(rows)]


def _markdown(cells: Cells) -> str:
    rule = ["---" if number < cells.names else "---:" for number in range(len(cells.headings))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (cells.headings, rule, *cells.lines))


def _load(file: Path) -> _Loaded:
    header, records = read_record_file(file)
    if "benchmarks" not in header:
        raise UserError("files", file, "is no record file of longshort eval, or one of an earlier version")
    expected = header["problems"] * header["samples"]
    if len(records) != expected:
        raise UserError("files", file, f"has {len(records)} of {expected} answers: run longshort eval again")
    return header, records


def _joined(files: Sequence[Path]) -> dict[str, _Loaded]:
    """The files by name; those of one name joined, as if their benchmarks had been evaluated together."""
    rows: dict[str, _Loaded] = {}
    for file in files:
        header, records = _load(file)
        name = header["name"]
        if name in rows:
            before, known = rows[name]
            if {record["benchmark"] for record in records} & {record["benchmark"] for record in known}:
                raise UserError("files", file, f"is a second file of {name} about the same benchmark")
            header = {**before, "benchmarks": [*before["benchmarks"], *header["benchmarks"]]}
            records = [*known, *records]
        rows[name] = (header, records)
    return rows


def _problems(records: Sequence[Record]) -> dict[tuple[str, int], str]:
    return {(record["benchmark"], record["problem_index"]): record["problem"] for record in records}
