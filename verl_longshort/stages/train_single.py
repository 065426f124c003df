"""`longshort train-single`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from verl_longshort.base.requirements import Requirements
from verl_longshort.base.stage import OVERRIDES, Stage


@dataclass(frozen=True, kw_only=True)
class TrainSingleSettings:
    """A checked configuration, and the overrides that gave it."""

    config: DictConfig
    overrides: Sequence[str]


class TrainSingleStage(Stage[TrainSingleSettings, None]):
    """Train one model that answers alone, the control of a pair (config/single_trainer.yaml)."""

    name = "train-single"
    parameters = OVERRIDES

    def settings(self, **arguments: Any) -> TrainSingleSettings:
        """verl's configuration with a block of our own, and all that can be checked of it in seconds."""
        from verl_longshort.verl_plugin.trainer.single_run import checked_config

        overrides = arguments["overrides"]
        return TrainSingleSettings(config=checked_config(overrides), overrides=overrides)

    def requirements(self, settings: TrainSingleSettings, inputs: None) -> Requirements:
        """Read from verl's configuration."""
        from verl_longshort.verl_plugin.trainer.requirements import single_requirements

        return single_requirements(settings.config)

    def run(self, settings: TrainSingleSettings, inputs: None, console: Console) -> None:
        """Train."""
        from verl_longshort.verl_plugin.trainer.single_run import train_single

        train_single(settings.config, settings.overrides)
