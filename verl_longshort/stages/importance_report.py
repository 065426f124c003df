"""`longshort importance-report`; what it shows: `docs/data.md`."""

from pathlib import Path
from typing import Any

import click
from longshort_reward.settings import Settings
from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.files import check_exists
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import OptionStage
from verl_longshort.stages import FOLDER


class ImportanceReportSettings(Settings):
    """Options of the command."""

    files: tuple[Path, ...]
    out: Path
    rule: str
    examples: int
    seed: int


class ImportanceReportStage(OptionStage[ImportanceReportSettings, None]):
    """Show how much thoughts matter: figures and a page to read weighed chains (.jsonl files) in."""

    name = "importance-report"
    Settings = ImportanceReportSettings
    parameters = (
        click.Argument(["files"], nargs=-1, required=True, type=click.Path(path_type=Path)),
        FOLDER,
        click.Option(["--rule"], default="m", show_default=True, help="What chooses the thoughts that stay long."),
        click.Option(["--examples"], default=20, show_default=True, help="Chains that can be read in the page."),
        click.Option(["--seed"], default=0, show_default=True, help="Chooses these chains."),
    )

    def requirements(self, settings: ImportanceReportSettings, inputs: None) -> Requirements:
        """Files that exist or will. Raises UserError otherwise."""
        for file in settings.files:
            check_exists(file, key="FILES")
        return Requirements(command=self.name, products=(Product(path=absolute(settings.out)),))

    def run(self, settings: ImportanceReportSettings, inputs: None, console: Console) -> Any:
        """Write the page and the figures; returns the statistics."""
        from verl_longshort.report.importance.page import importance_report

        return importance_report(
            settings.files,
            out=settings.out,
            rule=settings.rule,
            count=settings.examples,
            seed=settings.seed,
            console=console,
        )
