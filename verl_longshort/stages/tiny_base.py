"""`longshort tiny-base`."""

from pathlib import Path

import click
from longshort_reward.settings import Settings
from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import OptionStage


class TinyBaseSettings(Settings):
    """Options of the command."""

    out: Path
    seed: int


class TinyBaseStage(OptionStage[TinyBaseSettings, None]):
    """Train the base model of the miniature world from scratch."""

    name = "tiny-base"
    Settings = TinyBaseSettings
    parameters = (
        click.Option(["--out"], type=click.Path(path_type=Path), required=True, help="Folder to write."),
        click.Option(["--seed"], type=int, default=0, show_default=True),
    )

    def requirements(self, settings: TinyBaseSettings, inputs: None) -> Requirements:
        """A model made from nothing on the CPU, of a known shape."""
        from verl_longshort.world.tiny_model import build_model
        from verl_longshort.world.tiny_tokenizer import build_tokenizer

        config = build_model(build_tokenizer(), seed=0).config.to_dict()
        shape = {key: value for key, value in config.items() if isinstance(value, int | bool | str)}
        product = Product(path=absolute(settings.out), config=shape, bytes_per_parameter=4)
        return Requirements(command=self.name, products=(product,))

    def run(self, settings: TinyBaseSettings, inputs: None, console: Console) -> None:
        """Train it."""
        from verl_longshort.world.tiny_model import train_base

        train_base(settings.out, seed=settings.seed)
