"""Checks a training run before anything heavy is imported, started or written.

Every check ends in a `UserError` that names the key, the value and the remedy.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES
from omegaconf import DictConfig, OmegaConf

from verl_longshort.base.checkpoint import CheckpointStore
from verl_longshort.base.dry_run import gpus_per_node, planning
from verl_longshort.base.files import Record, Records, check_model, read_records
from verl_longshort.config.pair import PairSettings, settings_of
from verl_longshort.problems.fields import VERL
from verl_longshort.problems.reader import RowError, read_problem
from verl_longshort.verl_plugin.trainer.cluster import check_address, requested_address
from verl_longshort.verl_plugin.trainer.policy_config import build_policy_configs
from verl_longshort.verl_plugin.trainer.rollout_checks import check_installed, check_rollouts

COLUMNS = ("data_source", "prompt", "reward_model", "extra_info")
_LEFT_ALONE = {
    "trainer.total_training_steps": "the longshort block decides how long a run is; leave it null",
    "reward.custom_reward_function.path": "the reward is set in longshort.reward; leave it null",
    "trainer.v1.sampler.custom_sampler.path": "this trainer brings its own replay buffer; leave it null",
}
_OFF = {
    "algorithm.filter_groups.enable": "dynamic group filtering is not supported; set false",
    "reward.reward_model.enable": "a reward model is not supported; set false",
    "distillation.enabled": "distillation is not supported; set false",
}


def check(config: DictConfig) -> dict[str, Any]:
    """Check the composed, unresolved configuration of a run.

    Returns:
        The resolved configuration of each policy (`build_policy_configs`).

    Raises:
        UserError: for the first thing that cannot work.
    """
    settings = settings_of(config)
    check_unsupported(config)
    policies = build_policy_configs(config, settings.schedule)
    for role in ROLES:
        key = f"longshort.policies.{role}.actor_rollout_ref.model.path"
        check_model(str(policies[role.value]["actor_rollout_ref"]["model"]["path"]), key=key)
    check_data(config)
    check_rollouts(policies, shared=settings.pools == "shared", device=config.trainer.device)
    check_devices(config, pools=1 if settings.pools == "shared" else 2)
    check_installed(policies)
    _check_resume(config, settings, policies)
    return policies


def check_unsupported(config: DictConfig) -> None:
    """Raise UserError for settings of verl that our trainers cannot use."""
    for key, remedy in _LEFT_ALONE.items():
        value = OmegaConf.select(config, key)
        if value is not None:
            raise UserError(key, value, remedy)
    for key, remedy in _OFF.items():
        value = OmegaConf.select(config, key)
        if value:
            raise UserError(key, value, remedy)


def check_data(config: DictConfig) -> None:
    """Raise UserError for training or validation data that cannot be used, or too little of it."""
    train = _problems(config.data.train_files, "data.train_files")
    _problems(config.data.val_files, "data.val_files")
    batch = config.data.train_batch_size
    count = train.expected
    if batch <= 0 or (count is not None and batch > count):
        raise UserError("data.train_batch_size", batch, f"must be from 1 to the number of problems, {count}")


def _problems(files: str | Sequence[str], key: str) -> Records[Record]:
    paths = [files] if isinstance(files, str) else list(files)
    rows = Records.joined([read_records(path, key=key, columns=COLUMNS) for path in paths])
    for number, row in enumerate(rows, start=1):
        try:
            read_problem(row, VERL, source=key, index=number - 1)
        except RowError as error:
            raise UserError(key, files, f"record {number} {error}") from error
        if row["extra_info"].get("index") is None:
            raise UserError(key, files, f"record {number} lacks extra_info.index: number the problems")
    return rows


def check_devices(config: DictConfig, *, pools: int) -> None:
    """Raise UserError when a node has too few GPUs for so many resource pools, or the nodes are not named."""
    if not planning():
        check_address(config)
        if requested_address(config) is not None:
            # the cluster is asked when it is joined
            return
    wanted, present = config.trainer.n_gpus_per_node, gpus_per_node()
    if config.trainer.device == "cuda" and wanted * pools > present:
        remedy = (
            f"the run needs {wanted * pools} GPUs ({pools} x {wanted}) and this machine has {present}; "
            "ask for fewer, or train on the CPU with device=cpu"
        )
        raise UserError("trainer.n_gpus_per_node", wanted, remedy)


def _check_shards(policies: Mapping[str, Any], root: Path, step: int) -> None:
    """Raise UserError when the policies' checkpoints of `step` are not those of this run's ranks.

    verl's FSDP checkpoints are a file per rank, and each rank reads its own.
    """
    for role, policy in policies.items():
        ranks = policy["trainer"]["nnodes"] * policy["trainer"]["n_gpus_per_node"]
        folder = root / role / f"global_step_{step}" / "actor"
        there = {path.name for path in folder.glob("model_world_size_*_rank_*.pt")}
        missing = {f"model_world_size_{ranks}_rank_{rank}.pt" for rank in range(ranks)} - there
        if there and missing:
            remedy = (
                f"the checkpoint in {folder} lacks {min(missing)}: give as many ranks as wrote it "
                f"({min(there).split('_')[3]}), and a folder that all nodes share"
            )
            raise UserError("trainer.nnodes x trainer.n_gpus_per_node", ranks, remedy)


def _check_resume(config: DictConfig, settings: PairSettings, policies: Mapping[str, Any]) -> None:
    trainer = config.trainer
    if trainer.resume_mode == "disable":
        return
    store = CheckpointStore(trainer.default_local_dir)
    step = store.latest() if trainer.resume_mode == "auto" else None
    if trainer.resume_mode == "resume_path":
        given = Path(str(trainer.resume_from_path))
        if not (given / "pair.json").is_file():
            raise UserError("trainer.resume_from_path", given, "is no checkpoint of a pair: it has no pair.json")
        store, step = CheckpointStore(given.parent), int(given.name.rsplit("_", 1)[1])
    if step is not None:
        store.load(step, settings.schedule)
        _check_shards(policies, store.root, step)
