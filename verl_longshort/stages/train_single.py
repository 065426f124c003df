"""`longshort train-single`."""

from collections.abc import Sequence

from omegaconf import DictConfig
from rich.console import Console

from verl_longshort.base.requirements import Requirements
from verl_longshort.verl_plugin.stage import TrainingSettings, TrainingStage
from verl_longshort.verl_plugin.trainer.launch import checked_single_config, train_single
from verl_longshort.verl_plugin.trainer.requirements import single_requirements


class TrainSingleStage(TrainingStage):
    """Train one model that answers alone, the control of a pair (config/single_trainer.yaml)."""

    name = "train-single"

    def checked_config(self, overrides: Sequence[str]) -> DictConfig:
        """verl's configuration with a block of our own."""
        return checked_single_config(overrides)

    def requirements(self, settings: TrainingSettings, inputs: None) -> Requirements:
        """Read from verl's configuration."""
        return single_requirements(settings.config)

    def run(self, settings: TrainingSettings, inputs: None, console: Console) -> None:
        """Train."""
        train_single(settings.config, settings.overrides)
