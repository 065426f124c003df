"""`longshort train`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from verl_longshort.base.requirements import Requirements
from verl_longshort.base.stage import OVERRIDES, Stage


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """A checked configuration, and the overrides that gave it."""

    config: DictConfig
    overrides: Sequence[str]


class TrainStage(Stage[TrainSettings, None]):
    """Train the pair by rounds of reinforcement learning (config/longshort_trainer.yaml)."""

    name = "train"
    parameters = OVERRIDES

    def settings(self, **arguments: Any) -> TrainSettings:
        """verl's configuration with a block of our own, and all that can be checked of it in seconds."""
        from verl_longshort.verl_plugin.trainer.launch import checked_config

        overrides = arguments["overrides"]
        return TrainSettings(config=checked_config(overrides), overrides=overrides)

    def requirements(self, settings: TrainSettings, inputs: None) -> Requirements:
        """Read from verl's configuration."""
        from verl_longshort.verl_plugin.trainer.requirements import pair_requirements

        return pair_requirements(settings.config)

    def run(self, settings: TrainSettings, inputs: None, console: Console) -> None:
        """Train."""
        from verl_longshort.verl_plugin.trainer.launch import train

        train(settings.config, settings.overrides)
