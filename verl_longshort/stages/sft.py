"""`longshort sft`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from verl_longshort.base.requirements import Requirements
from verl_longshort.base.stage import OVERRIDES, Stage


@dataclass(frozen=True, kw_only=True)
class SftSettings:
    """A checked configuration, and the overrides that gave it."""

    config: DictConfig
    overrides: Sequence[str]


class SftStage(Stage[SftSettings, None]):
    """Fine-tune one role on joint trajectories (config/sft.yaml)."""

    name = "sft"
    parameters = OVERRIDES

    def settings(self, **arguments: Any) -> SftSettings:
        """verl's configuration with a block of our own, and all that can be checked of it in seconds."""
        from verl_longshort.verl_plugin.trainer.sft import checked_config

        overrides = arguments["overrides"]
        return SftSettings(config=checked_config(overrides), overrides=overrides)

    def requirements(self, settings: SftSettings, inputs: None) -> Requirements:
        """Read from verl's configuration."""
        from verl_longshort.verl_plugin.trainer.requirements import sft_requirements

        return sft_requirements(settings.config)

    def run(self, settings: SftSettings, inputs: None, console: Console) -> None:
        """Train."""
        from verl_longshort.verl_plugin.trainer.sft import fine_tune

        fine_tune(settings.config, settings.overrides)
