"""`longshort train`."""

from collections.abc import Sequence

from omegaconf import DictConfig
from rich.console import Console

from verl_longshort.base.requirements import Requirements
from verl_longshort.verl_plugin.stage import TrainingSettings, TrainingStage
from verl_longshort.verl_plugin.trainer.launch import checked_config, train
from verl_longshort.verl_plugin.trainer.requirements import pair_requirements


class TrainStage(TrainingStage):
    """Train the pair by rounds of reinforcement learning (config/longshort_trainer.yaml)."""

    name = "train"

    def checked_config(self, overrides: Sequence[str]) -> DictConfig:
        """verl's configuration with a block of our own."""
        return checked_config(overrides)

    def requirements(self, settings: TrainingSettings, inputs: None) -> Requirements:
        """Read from verl's configuration."""
        return pair_requirements(settings.config)

    def run(self, settings: TrainingSettings, inputs: None, console: Console) -> None:
        """Train."""
        train(settings.config, settings.overrides)
