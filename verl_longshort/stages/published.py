"""`longshort published`; what the figures mean: `docs/evaluation.md`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from longshort_reward.settings import Settings
from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import OptionStage
from verl_longshort.evaluation.other_methods import OtherResult
from verl_longshort.evaluation.published import show_published


class PublishedSettings(Settings):
    """Options of the command."""

    markdown: Path | None
    json_file: Path | None


class PublishedStage(OptionStage[PublishedSettings, None]):
    """Show what the paper and other methods published."""

    name = "published"
    Settings = PublishedSettings
    parameters = (
        click.Option(["--markdown"], type=click.Path(path_type=Path), help="Also write the tables as Markdown."),
        click.Option(["--json", "json_file"], type=click.Path(path_type=Path), help="Also write other methods' rows."),
    )

    def requirements(self, settings: PublishedSettings, inputs: None) -> Requirements:
        """The files that are written."""
        written = [path for path in (settings.markdown, settings.json_file) if path is not None]
        return Requirements(command=self.name, products=tuple(Product(path=absolute(path)) for path in written))

    def run(self, settings: PublishedSettings, inputs: None, console: Console) -> Sequence[OtherResult]:
        """Print and write the tables; returns the rows of other methods."""
        # Rich takes 80 columns for a file, and the tables need more.
        wide = console if sys.stdout.isatty() else Console(width=140)
        return show_published(markdown=settings.markdown, json_file=settings.json_file, console=wide)
