"""What the stages that train with verl have in common: verl's configuration with a block of our own."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from verl_longshort.base.stage import OVERRIDES, Stage


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """A checked configuration, and the overrides that gave it."""

    config: DictConfig
    overrides: Sequence[str]


class TrainingStage(Stage[TrainingSettings, None]):
    """A stage that is configured by a configuration of verl."""

    parameters = OVERRIDES

    @abstractmethod
    def checked_config(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration, with all that can be checked of it in seconds. Raises UserError."""

    def settings(self, **arguments: Any) -> TrainingSettings:
        """See `checked_config`."""
        overrides = arguments["overrides"]
        return TrainingSettings(config=self.checked_config(overrides), overrides=overrides)
