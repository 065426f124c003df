"""`longshort prose-base`."""

from pathlib import Path

import click
from longshort_reward.settings import PositiveInt, Settings
from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.files import ModelPath
from verl_longshort.base.folders import lock_file, real_folder
from verl_longshort.base.lock import Lock
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import OptionStage
from verl_longshort.stages import FOLDER, SEED


class ProseBaseSettings(Settings):
    """Options of the command."""

    model: ModelPath
    out: Path
    seed: int
    rows: PositiveInt


class ProseBaseStage(OptionStage[ProseBaseSettings, None]):
    """Teach a pretrained chat model the long chains of the prose world."""

    name = "prose-base"
    Settings = ProseBaseSettings
    parameters = (
        click.Option(["--model"], required=True, help="Hugging Face folder or name."),
        FOLDER,
        SEED,
        click.Option(["--rows"], type=int, default=1200, show_default=True, help="Solutions to train on, each once."),
    )

    def lock(self, settings: ProseBaseSettings) -> Lock:
        """Of the folder that is worked in."""
        folder = real_folder(settings.out, key="--out")
        return Lock(file=lock_file(folder), key="--out", value=folder, holder="another run")

    def requirements(self, settings: ProseBaseSettings, inputs: None) -> Requirements:
        """A model of the shape of the one that is given."""
        product = Product(path=absolute(settings.out), model=settings.model, bytes_per_parameter=4)
        return Requirements(command=self.name, products=(product,))

    def run(self, settings: ProseBaseSettings, inputs: None, console: Console) -> None:
        """Train it."""
        from verl_longshort.world.prose_base import train_prose_base

        train_prose_base(settings.model, real_folder(settings.out, key="--out"), seed=settings.seed, rows=settings.rows)
