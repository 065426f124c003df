"""`longshort sft`."""

from collections.abc import Sequence

from omegaconf import DictConfig
from rich.console import Console

from verl_longshort.base.requirements import Requirements
from verl_longshort.verl_plugin.stage import TrainingSettings, TrainingStage
from verl_longshort.verl_plugin.trainer.requirements import sft_requirements
from verl_longshort.verl_plugin.trainer.sft import checked_config, fine_tune


class SftStage(TrainingStage):
    """Fine-tune one role on joint trajectories (config/sft.yaml)."""

    name = "sft"

    def checked_config(self, overrides: Sequence[str]) -> DictConfig:
        """verl's configuration with a block of our own."""
        return checked_config(overrides)

    def requirements(self, settings: TrainingSettings, inputs: None) -> Requirements:
        """Read from verl's configuration."""
        return sft_requirements(settings.config)

    def run(self, settings: TrainingSettings, inputs: None, console: Console) -> None:
        """Train."""
        fine_tune(settings.config, settings.overrides)
