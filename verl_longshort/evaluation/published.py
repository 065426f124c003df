"""Everything published that the project has as data, as tables: the paper's rows, then those of other methods.

`show_published` is the command. A table is about one source, because only rows of one source were evaluated alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from verl_longshort.base.files import write_json, write_text
from verl_longshort.evaluation import paper
from verl_longshort.evaluation.other_methods import OtherResult, Source, other_results, results_of, sources
from verl_longshort.evaluation.table import Cells, as_table, cells_as_markdown
from verl_longshort.problems.benchmarks import title

CAPTION = (
    "published, not measured here; AES by this project's formula, against the base row of the same source and model, "
    "over the benchmarks shown"
)


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """The rows of one source, as texts."""

    heading: str
    about: str
    cells: Cells


def published_tables() -> list[PublishedTable]:
    """The paper's table and one for each source of other methods."""
    return [_of_paper(), *other_tables()]


def other_tables() -> list[PublishedTable]:
    """A table for each source of other methods."""
    return [_of_source(source) for source in sources()]


def show_published(*, markdown: Path | None, json_file: Path | None, console: Console) -> Sequence[OtherResult]:
    """Print the tables; write them as Markdown, and the other methods' rows as JSON, where asked."""
    tables = published_tables()
    for table in tables:
        console.print(table.heading, style="bold", highlight=False)
        console.print(as_table(table.cells))
        console.print(table.about, style="dim", highlight=False)
        console.print()
    console.print(CAPTION, style="dim", highlight=False)
    if markdown is not None:
        parts = [f"**{table.heading}**\n\n{cells_as_markdown(table.cells)}\n{table.about}\n" for table in tables]
        write_text(markdown, "\n".join([*parts, f"{CAPTION}\n"]))
    results = other_results()
    if json_file is not None:
        write_json(json_file, [result.to_json() for result in results])
    return results


def _of_paper() -> PublishedTable:
    headings = ("model", "method", *map(title, paper.BENCHMARKS), "mean %", "length", "AES")
    lines = [
        (
            row.backbone,
            row.method,
            *(f"{row.accuracies[name]:.1f}" for name in paper.BENCHMARKS),
            f"{row.accuracy:.1f}",
            f"{row.mean_length:.0f}",
            f"{row.aes:+.2f}",
        )
        for row in paper.published_results()
    ]
    about = "Accuracy in per cent; lengths are most likely in characters. One answer per problem, no seeds."
    return PublishedTable(
        heading=f"Long⊗Short, {paper.SOURCE}", about=about, cells=Cells(headings=headings, lines=lines, names=2)
    )


def _of_source(source: Source) -> PublishedTable:
    headings = ("base model", "method", *map(title, source.benchmarks), "mean %", "tokens", "AES")
    lines = [
        (
            row.base_model,
            row.method,
            *(f"{row.accuracies[name]:.1f} ({row.tokens[name]:.0f})" for name in source.benchmarks),
            f"{row.accuracy:.1f}",
            f"{row.mean_tokens:.0f}",
            f"{row.aes:+.2f}",
        )
        for row in results_of(source)
    ]
    return PublishedTable(
        heading=f"{source.title}, arXiv {source.arxiv}, {source.table}",
        about=f"Accuracy in per cent (tokens); {source.protocol}. {source.note} Read in: {source.seen}.",
        cells=Cells(headings=headings, lines=lines, names=2),
    )
