"""Starts the training of a single model, the control of a pair: compose, check, hand over to verl."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, open_dict

from verl_longshort.base.files import check_model
from verl_longshort.config.compose import compose_config
from verl_longshort.config.single_model import SingleSettings, single_settings_of
from verl_longshort.verl_plugin.trainer import preflight
from verl_longshort.verl_plugin.trainer.launch import UNUSED, check_by_verl, run_verl
from verl_longshort.verl_plugin.trainer.verl_checks import check_ppo

CONFIG_NAME = "single_trainer"


def checked_config(overrides: Sequence[str]) -> DictConfig:
    """`config/single_trainer.yaml` with Hydra's `key=value`, checked.

    Raises:
        UserError: a setting or an input that cannot be used, before anything is started or written.
    """
    config = compose_config(CONFIG_NAME, overrides, unused=UNUSED)
    settings = check(config)
    with open_dict(config):
        config.trainer.default_local_dir = str(Path(config.trainer.default_local_dir).absolute())
        # verl stops at whichever comes first, and an epoch has at least one step
        config.trainer.total_training_steps = config.trainer.total_epochs = settings.steps
    check_by_verl(config, "actor_rollout_ref")
    check_ppo(config, "")
    return config


def train_single(config: DictConfig, overrides: Sequence[str]) -> None:
    """Train as the checked configuration says, which `overrides` gave, until the run ends.

    A run that was killed resumes from its last checkpoint when it is started again with the same overrides.

    Raises:
        UserError, RunDiedError: see `run_verl`.
    """
    command = ("longshort", "train-single", *overrides)
    run_verl(config, models={"longshort.model": single_settings_of(config).model}, command=command)


def check(config: DictConfig) -> SingleSettings:
    """Check the composed, unresolved configuration of a run. Raises UserError for what cannot work."""
    settings = single_settings_of(config)
    preflight.check_unsupported(config)
    check_model(settings.model, key="longshort.model")
    preflight.check_data(config)
    preflight.check_devices(config, pools=1)
    return settings
