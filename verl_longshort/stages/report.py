"""`longshort report`; what it shows: `docs/report.md`."""

from pathlib import Path
from typing import Annotated

import click
from annotated_types import Ge
from longshort_reward.settings import Remedy, Settings
from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.files import check_exists
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import OptionStage


class ReportSettings(Settings):
    """Options of the command."""

    folders: tuple[Path, ...]
    out: Path
    base: str | None
    trajectories: Annotated[int, Ge(0), Remedy("must be 0 or more")]
    seed: int


class ReportStage(OptionStage[ReportSettings, None]):
    """Write one HTML file about one or several runs (their output folders)."""

    name = "report"
    Settings = ReportSettings
    parameters = (
        click.Argument(["folders"], nargs=-1, required=True, metavar="RUN_DIR...", type=click.Path(path_type=Path)),
        click.Option(["--out"], type=click.Path(path_type=Path), required=True, help="HTML file to write."),
        click.Option(["--base"], help="Evaluation that AES is relative to; the long chain of thought by default."),
        click.Option(
            ["--trajectories"],
            type=int,
            default=3000,
            show_default=True,
            help="At most so many in the viewer.",
        ),
        click.Option(["--seed"], type=int, default=0, show_default=True, help="Decides which trajectories."),
    )

    def requirements(self, settings: ReportSettings, inputs: None) -> Requirements:
        """Folders that exist or will. Raises UserError otherwise."""
        for folder in settings.folders:
            check_exists(folder, key="RUN_DIR")
        return Requirements(command=self.name, products=(Product(path=absolute(settings.out)),))

    def run(self, settings: ReportSettings, inputs: None, console: Console) -> None:
        """Write the page."""
        from verl_longshort.report.report import report

        report(
            settings.folders,
            out=settings.out,
            base=settings.base,
            trajectories=settings.trajectories,
            seed=settings.seed,
        )
        console.print(f"Wrote {settings.out}", highlight=False, soft_wrap=True)
