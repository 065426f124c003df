"""One shape for every command that works on files: settings, inputs, requirements, work.

A `Stage` says what a command is; `execute` decides whether it is run or, in the dry run of a recipe, only checked
and asked what it requires. So no stage knows of dry runs, help texts or progress bars. The stages themselves are in
`verl_longshort/stages`, one file each.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import click
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from verl_longshort.base.console import captured, next_log
from verl_longshort.base.dry_run import dry_run
from verl_longshort.base.lock import Lock, held
from verl_longshort.base.progress import shown
from verl_longshort.base.requirements import Requirements
from verl_longshort.config.compose import compose_config

OVERRIDES: Sequence[click.Parameter] = (click.Argument(["overrides"], nargs=-1, metavar="[KEY=VALUE]..."),)
"""The command line of stages that are configured by Hydra's `key=value`."""

SettingsT = TypeVar("SettingsT")
InputsT = TypeVar("InputsT")


class Stage(ABC, Generic[SettingsT, InputsT]):
    """A command that works on files. The docstring's first line is its help text."""

    name: ClassVar[str]
    """As it is called: `weigh`, or `prepare chains` for a command of a group."""
    parameters: ClassVar[Sequence[click.Parameter]]
    """Arguments and options of the command line."""
    talks: ClassVar[bool] = False
    """It uses the terminal itself, where no progress may be shown."""

    @abstractmethod
    def settings(self, **arguments: Any) -> SettingsT:
        """Check what was given on the command line; in seconds, before any heavy import. Raises UserError."""

    def inputs(self, settings: SettingsT) -> InputsT:
        """Read and check the files that the work begins with. Raises UserError.

        In a dry run a file may be one that an earlier stage will write: `base.files` then gives no records,
        and their expected number.
        """
        return None  # type: ignore[return-value]

    def lock(self, settings: SettingsT) -> Lock | None:
        """What only one process may hold while it works; None: several may."""
        return None

    def log(self, settings: SettingsT) -> Path | None:
        """File for all that the work's processes print; None: they print what a person should read."""
        return None

    @abstractmethod
    def requirements(self, settings: SettingsT, inputs: InputsT) -> Requirements:
        """What the work will need and write."""

    @abstractmethod
    def run(self, settings: SettingsT, inputs: InputsT, console: Console) -> Any:
        """Do the work; tell how far it is by `progress.report`, and the result on `console` and to the caller."""


class ConfigStage(Stage[SettingsT, InputsT]):
    """A stage that is configured by a YAML file in `config/` and Hydra's `key=value`."""

    config: ClassVar[str]
    """Name of the YAML file."""
    Settings: ClassVar[Any]
    """Type of its `longshort` block: a `longshort_reward.settings.Settings`."""
    parameters = OVERRIDES

    def settings(self, **arguments: Any) -> SettingsT:
        """The checked block of the configuration. Raises UserError."""
        parsed: SettingsT = self.Settings.parse(self.block(arguments["overrides"]))
        return parsed

    def block(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The `longshort` block of the config with the overrides, not checked yet. Raises UserError."""
        block = OmegaConf.to_container(compose_config(self.config, overrides).longshort, resolve=True)
        assert isinstance(block, dict)
        return {str(key): value for key, value in block.items()}


class OptionStage(Stage[SettingsT, InputsT]):
    """A stage that is configured by options of the command line."""

    Settings: ClassVar[Any]
    """A `longshort_reward.settings.Settings` with one field for each parameter."""

    def settings(self, **arguments: Any) -> SettingsT:
        """The options as settings. Raises UserError."""
        parsed: SettingsT = self.Settings.parse(arguments, where="")
        return parsed


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """A checked configuration, and the overrides that gave it."""

    config: DictConfig
    overrides: Sequence[str]


class TrainingStage(Stage[TrainingSettings, None]):
    """A stage that trains with verl, configured by verl's configuration with a block of our own."""

    checked_config: ClassVar["staticmethod[[Sequence[str]], DictConfig]"]
    """The configuration with the overrides, with all that can be checked of it in seconds. Raises UserError."""
    required: ClassVar["staticmethod[[DictConfig], Requirements]"]
    """What a checked configuration asks for."""
    train: ClassVar["staticmethod[[DictConfig, Sequence[str]], None]"]
    """Does the work, given a checked configuration and its overrides."""
    parameters = OVERRIDES

    def settings(self, **arguments: Any) -> TrainingSettings:
        """See `checked_config`."""
        overrides = arguments["overrides"]
        return TrainingSettings(config=self.checked_config(overrides), overrides=overrides)

    def requirements(self, settings: TrainingSettings, inputs: None) -> Requirements:
        """Read from the configuration."""
        return self.required(settings.config)

    def lock(self, settings: TrainingSettings) -> Lock | None:
        """Of the checkpoints' folder."""
        key, folder = "trainer.default_local_dir", Path(settings.config.trainer.default_local_dir)
        return Lock(file=folder / ".lock", key=key, value=folder, holder="another run")

    def log(self, settings: TrainingSettings) -> Path | None:
        """In `logs/` beside the checkpoints."""
        return next_log(Path(settings.config.trainer.default_local_dir) / "logs", self.name)

    def run(self, settings: TrainingSettings, inputs: None, console: Console) -> None:
        """Train."""
        self.train(settings.config, settings.overrides)


def execute(
    stage: Stage[Any, Any],
    console: Console | None = None,
    *,
    look: Callable[[Requirements], None] | None = None,
    **arguments: Any,
) -> Any:
    """Run `stage` and return what it made, or tell a dry run what it requires.

    `look` sees what the work will require before it begins. Raises UserError for what was given, before any work.
    """
    settings = stage.settings(**arguments)
    inputs = stage.inputs(settings)
    if (dry := dry_run()) is not None:
        dry.finish(stage.requirements(settings, inputs))
    with nullcontext() if (lock := stage.lock(settings)) is None else held(lock):
        if look is not None:
            look(stage.requirements(settings, inputs))
        if (log := stage.log(settings)) is None:
            with nullcontext() if stage.talks else shown(stage.name):
                return stage.run(settings, inputs, console or Console())
        with captured(log) as apart, shown(stage.name, apart.console, said=apart.said):
            return stage.run(settings, inputs, apart.console)
