"""`longshort tiny-base`."""

from rich.console import Console

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.requirements import Product, Requirements
from verl_longshort.base.stage import OptionStage
from verl_longshort.stages import FOLDER, SEED, FolderAndSeed


class TinyBaseStage(OptionStage[FolderAndSeed, None]):
    """Train the base model of the miniature world from scratch."""

    name = "tiny-base"
    Settings = FolderAndSeed
    parameters = (FOLDER, SEED)

    def requirements(self, settings: FolderAndSeed, inputs: None) -> Requirements:
        """A model made from nothing on the CPU, of a known shape."""
        from verl_longshort.world.tiny_model import build_model
        from verl_longshort.world.tiny_tokenizer import build_tokenizer

        config = build_model(build_tokenizer(), seed=0).config.to_dict()
        shape = {key: value for key, value in config.items() if isinstance(value, int | bool | str)}
        product = Product(path=absolute(settings.out), config=shape, bytes_per_parameter=4)
        return Requirements(command=self.name, products=(product,))

    def run(self, settings: FolderAndSeed, inputs: None, console: Console) -> None:
        """Train it."""
        from verl_longshort.world.tiny_model import train_base

        train_base(settings.out, seed=settings.seed)
