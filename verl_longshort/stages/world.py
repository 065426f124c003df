"""`longshort world`."""

from pathlib import Path

import click
from longshort_reward.settings import Settings
from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import OptionStage

RL_PARTS = ("train", "val", "test")


class WorldSettings(Settings):
    """Options of the command."""

    out: Path
    seed: int


class WorldStage(OptionStage[WorldSettings, None]):
    """Write the problems of the miniature world."""

    name = "world"
    Settings = WorldSettings
    parameters = (
        click.Option(["--out"], type=click.Path(path_type=Path), required=True, help="Folder to write."),
        click.Option(["--seed"], type=int, default=0, show_default=True),
    )

    def requirements(self, settings: WorldSettings, inputs: None) -> Requirements:
        """Files of a known number of records."""
        from verl_longshort.world.make_world import Sizes

        files = {f"{part}.{'parquet' if part in RL_PARTS else 'jsonl'}": count for part, count in vars(Sizes()).items()}
        products = (Product(path=absolute(settings.out / name), records=count) for name, count in files.items())
        return Requirements(command=self.name, products=tuple(products))

    def run(self, settings: WorldSettings, inputs: None, console: Console) -> None:
        """Write the files."""
        from verl_longshort.world.make_world import make_world

        make_world(settings.out, settings.seed)
