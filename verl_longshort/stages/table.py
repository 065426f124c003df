"""`longshort table`; what the figures mean: `docs/evaluation.md`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from longshort_reward.errors import UserError
from longshort_reward.settings import Settings
from rich.console import Console

from verl_longshort.base.dry_run import absolute, is_planned
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import OptionStage
from verl_longshort.evaluation.table import TableRow, show_table


class TableSettings(Settings):
    """Options of the command."""

    files: tuple[Path, ...]
    base: str | None
    text: Path | None
    markdown: Path | None
    json_file: Path | None
    details: bool


class TableStage(OptionStage[TableSettings, None]):
    """Show evaluations (their .jsonl files) as one table."""

    name = "table"
    Settings = TableSettings
    parameters = (
        click.Argument(["files"], nargs=-1, required=True, type=click.Path(path_type=Path)),
        click.Option(["--base"], help="Row that AES is relative to; the first by default."),
        click.Option(["--text"], type=click.Path(path_type=Path), help="Also write the table as it is shown."),
        click.Option(["--markdown"], type=click.Path(path_type=Path), help="Also write the table as Markdown."),
        click.Option(["--json", "json_file"], type=click.Path(path_type=Path), help="Also write the table as JSON."),
        click.Option(["--details"], is_flag=True, help="Also show all figures, on each benchmark."),
    )

    def requirements(self, settings: TableSettings, inputs: None) -> Requirements:
        """Files. Raises UserError for one that neither exists nor will."""
        for file in settings.files:
            if not (is_planned(file) or file.is_file()):
                raise UserError("FILES", file, "no such file, and no stage before writes it")
        written = [path for path in (settings.text, settings.markdown, settings.json_file) if path is not None]
        return Requirements(command=self.name, products=tuple(Product(path=absolute(path)) for path in written))

    def run(self, settings: TableSettings, inputs: None, console: Console) -> Sequence[TableRow]:
        """Print and write the table; returns its rows."""
        # Rich takes 80 columns for a file, and the table needs a few more.
        wide = console if sys.stdout.isatty() else Console(width=240 if settings.details else 120)
        return show_table(
            settings.files,
            base=settings.base,
            text=settings.text,
            markdown=settings.markdown,
            json_file=settings.json_file,
            console=wide,
            detailed=settings.details,
        )
