"""Starts a training run, of a pair or of a single model, its control: compose, check, hand over to verl."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import psutil
from longshort_reward.protocol import ROLES
from omegaconf import DictConfig, open_dict

from verl_longshort.base.checkpoint import CheckpointStore
from verl_longshort.base.console import say
from verl_longshort.base.dry_run import absolute
from verl_longshort.base.metrics_files import metrics_file
from verl_longshort.base.policy_record import prompt_warnings
from verl_longshort.config.compose import compose_config, default_config
from verl_longshort.config.pair import Pools, policy_key, settings_of
from verl_longshort.config.single_model import single_settings_of
from verl_longshort.verl_plugin.checks import preflight
from verl_longshort.verl_plugin.checks.buckets import size_bucket
from verl_longshort.verl_plugin.checks.data_checks import paths_of
from verl_longshort.verl_plugin.checks.keys import PAIR_LOOP, SINGLE_LOOP, check_keys
from verl_longshort.verl_plugin.checks.learning_checks import (
    PAIR_FACTS,
    SINGLE_FACTS,
    check_estimator,
    check_filter,
    check_warmup,
)
from verl_longshort.verl_plugin.checks.notes import notes_of
from verl_longshort.verl_plugin.checks.policy_config import place_engine
from verl_longshort.verl_plugin.checks.verl_checks import check_by_verl, check_ppo
from verl_longshort.verl_plugin.run import cluster
from verl_longshort.verl_plugin.versions import check_verl

PAIR_CONFIG = "longshort_trainer"
SINGLE_CONFIG = "single_trainer"
# verl's configuration of a reward model server; nothing reads it while there is none
UNUSED = ("reward.reward_model",)
QUEUE_THREADS = "TQ_NUM_THREADS"
LAST_LINES_S = 1.0
"""How long Ray may take to forward a line that a process printed; it sleeps half as long when a driver exits."""
DATA_SET = {"path": "pkg://verl_longshort.verl_plugin.trainer.dataset", "name": "ProblemDataset"}
_FOLDERS = ("default_local_dir", "resume_from_path", "rollout_data_dir", "validation_data_dir")


def checked_config(overrides: Sequence[str]) -> DictConfig:
    """`config/longshort_trainer.yaml` with Hydra's `key=value`, checked, with a configuration per policy.

    Raises:
        UserError: a setting or an input that cannot be used, before anything is started or written.
    """
    check_verl()
    config = compose_config(PAIR_CONFIG, overrides, unused=UNUSED)
    check_keys(config, default_config(PAIR_CONFIG, overrides), agent_loop=PAIR_LOOP)
    settle_paths(config)
    check_filter(config, PAIR_FACTS)
    checked = preflight.check(config)
    with open_dict(config):
        config.longshort.policy_configs = checked.policies
    _settle(config, checked)
    settings = settings_of(config)
    for name, roles in settings.players.items():
        policy, where = config.longshort.policy_configs[name], policy_key(name)
        check_by_verl(policy, where)
        updates = settings.schedule.updates(roles[0])
        check_ppo(policy, f"{where}.", learns=updates > 0)
        if updates:
            check_estimator(policy, f"{where}.")
            check_warmup(policy, f"{where}.", updates=updates)
    return config


def checked_single_config(overrides: Sequence[str]) -> DictConfig:
    """`config/single_trainer.yaml` with Hydra's `key=value`, checked. Raises UserError as `checked_config`."""
    check_verl()
    config = compose_config(SINGLE_CONFIG, overrides, unused=UNUSED)
    check_keys(config, default_config(SINGLE_CONFIG, overrides), agent_loop=SINGLE_LOOP)
    settle_paths(config)
    check_filter(config, SINGLE_FACTS)
    place_engine(config)
    checked = preflight.check_single(config)
    _settle(config, checked)
    with open_dict(config):
        # verl stops at whichever comes first, and an epoch has at least one step
        config.trainer.total_training_steps = config.trainer.total_epochs = config.longshort.steps
    check_by_verl(config, "actor_rollout_ref")
    check_ppo(config, "")
    check_estimator(config, "")
    check_warmup(config, "", updates=config.longshort.steps)
    return config


def settle_paths(config: DictConfig) -> None:
    """Make the paths of a composed configuration absolute, in place: verl's processes know no `~`."""
    with open_dict(config):
        for key in ("train_files", "val_files"):
            config.data[key] = [absolute(path) for path in paths_of(config.data[key])]
        for key in _FOLDERS:
            if config.trainer[key] is not None:
                config.trainer[key] = absolute(config.trainer[key])
        for block, key in _model_keys(config):
            block[key] = str(Path(block[key]).expanduser())


def _model_keys(config: DictConfig) -> list[tuple[DictConfig, str]]:
    if "model" in config.longshort:
        return [(config.longshort, "model")]
    return [(config.longshort.policies[role.value].actor_rollout_ref.model, "path") for role in ROLES]


def _settle(config: DictConfig, checked: preflight.Checked) -> None:
    """Put in place what verl's processes need of the checks."""
    with open_dict(config):
        config.longshort.notes = [*checked.notes, *notes_of(config)]
        if config.data.custom_cls.path is None:
            config.data.custom_cls = dict(DATA_SET)
            config.data.prompt_makers = [asdict(maker) for maker in checked.makers]


def train(config: DictConfig, overrides: Sequence[str]) -> None:
    """Train a pair as the checked configuration says, which `overrides` gave, until the run ends.

    A run that was killed resumes from its last checkpoint when it is started again with the same overrides.

    Raises:
        UserError, RunDiedError: see `run_verl`.
    """
    from verl_longshort.engines.loading import check_weights

    settings, models = settings_of(config), dict[str, str]()
    for name, roles in settings.players.items():
        policy, where = config.longshort.policy_configs[name], policy_key(name)
        key, model = f"{where}.actor_rollout_ref.model.path", policy.actor_rollout_ref.model
        models[key] = model.path
        # verl would fill missing weights in at random
        check_weights(model.path, key=key, trust_remote_code=model.trust_remote_code)
        if settings.schedule.updates(roles[0]):
            _add_note(config, size_bucket(policy, where=f"{where}."))
        for line in prompt_warnings(dict.fromkeys(roles, model.path), settings.prompts):
            say(f"warning: {line}")
    pools = 2 if settings.pools is Pools.SEPARATE else 1
    run_verl(config, pools=pools, models=models, command=("longshort", "train", *overrides))
    best = CheckpointStore(config.trainer.default_local_dir).read_best()
    if best:
        models_of_best = " and ".join(dict.fromkeys(best["models"][role] for role in ROLES))
        say(f"best pair: step {best['best']['step']}, {models_of_best}")


def train_single(config: DictConfig, overrides: Sequence[str]) -> None:
    """Train a single model; otherwise as `train`."""
    from verl_longshort.engines.loading import check_weights

    models = {"longshort.model": single_settings_of(config).model}
    check_weights(models["longshort.model"], key="longshort.model")
    _add_note(config, size_bucket(config))
    run_verl(config, pools=1, models=models, command=("longshort", "train-single", *overrides))


def _add_note(config: DictConfig, note: str | None) -> None:
    if note is not None:
        config.longshort.notes.append(note)


def run_verl(config: DictConfig, *, pools: int, models: Mapping[str, str], command: Sequence[str]) -> None:
    """Run verl's task runner on a checked configuration until the run ends.

    Args:
        config: the run; where its processes live and what of the environment they get is settled in it.
        pools: resource pools, of trainer.nnodes x trainer.n_gpus_per_node devices each.
        models: configuration key -> model, for the check that every node has them.
        command: what starts this run again, for the report when it dies.

    Raises:
        UserError: the Ray cluster is not what the run needs, or as a process of the run raised it.
        RunDiedError: a node or a process of the run died.
        RunStoppedError: the command received SIGTERM.
    """
    import ray
    from ray.exceptions import RayError
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

    from verl_longshort.verl_plugin.plugin import raise_load_error
    from verl_longshort.verl_plugin.run.runner import WatchedRunner

    raise_load_error()
    for note in config.longshort.notes:
        say(f"note: {note}")
    if cluster.requested_address(config) is None:
        # TransferQueue warns at every request where the machine has fewer cores than the eight threads it likes
        os.environ.setdefault(QUEUE_THREADS, str(min(8, psutil.cpu_count(logical=False) or 1)))
    cluster.check_reachable(config)
    with metrics_file(Path(config.trainer.default_local_dir)):
        cluster.point_at_cluster(config, pools=pools)
        cluster.carry_environment(config, os.environ)
        runner = WatchedRunner(TaskRunnerV1, config, pools=pools, models=models, command=command)
        runner.stop.file.forget()
        runner.stop.install(is_running=False)
        try:
            run_ppo(config, task_runner_class=runner)
        except SystemExit as error:
            # Ray's own answer to SIGTERM, while it starts
            raise runner.stop.file.stopped() from error
        except RayError as error:
            if runner.stop.is_asked:
                raise runner.stop.file.stopped() from error
            explained = runner.explain(error)
            if explained is error:
                raise
            raise explained from error
        except (Exception, KeyboardInterrupt) as error:
            if not runner.connected and isinstance(error, (ConnectionError, RuntimeError, ValueError)):
                raise cluster.no_connection(config, error) from error
            if lost := runner.lost_process():
                raise lost from error
            raise
        finally:
            runner.stop_watching()
            runner.stop.restore()
            # what the processes printed last is on its way to the log
            time.sleep(LAST_LINES_S)
            ray.shutdown()
