"""`longshort world`."""

import click
from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import OptionStage
from verl_longshort.stages import FOLDER, SEED, FolderAndSeed

RL_PARTS = ("train", "val", "test")
KINDS = ("counter", "prose")


class WorldSettings(FolderAndSeed):
    """Options of the command."""

    kind: str


class WorldStage(OptionStage[WorldSettings, None]):
    """Write the problems and chains of thought of a world."""

    name = "world"
    Settings = WorldSettings
    parameters = (
        FOLDER,
        SEED,
        click.Option(
            ["--kind"],
            type=click.Choice(KINDS),
            default="counter",
            show_default=True,
            help="counter: the miniature world. prose: word problems in English.",
        ),
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

        make_world(settings.out, settings.seed, kind=settings.kind)
