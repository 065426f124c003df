"""The verl configuration of each policy: the run's own, with that policy's overrides merged in.

Merging comes before resolving: many of verl's keys interpolate others, and an override must reach them too.
verl resolves a run's configuration before its trainer sees it, so the launcher builds these and stores them
under `longshort.policy_configs`.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigKeyError

from verl_longshort.config.pair import leaves, plain_dict, policy_key
from verl_longshort.core.policies import TIED, players
from verl_longshort.core.schedule import Schedule
from verl_longshort.verl_plugin.rollout.registry import ROLLOUTS

_DERIVED = ("reward.num_workers", "trainer.default_local_dir", "trainer.resume_mode", "trainer.resume_from_path")


def build_policy_configs(config: DictConfig, schedule: Schedule, *, tied: bool = False) -> dict[str, Any]:
    """Resolved plain containers, one per policy, of the composed, unresolved configuration of a run.

    A policy that `schedule` never trains is a server on devices of its own. Raises UserError for an override of a key
    that verl does not have, or of one that the pair decides.
    """
    return {
        name: _build(config, name, serves_only=not schedule.updates(roles[0]))
        for name, roles in players(tied=tied).items()
    }


def _build(config: DictConfig, name: str, *, serves_only: bool) -> Any:
    where = policy_key(name)
    overrides = plain_dict(OmegaConf.select(config, where))
    base = config.copy()
    _check_keys(overrides, base, where)
    OmegaConf.set_struct(base, True)
    try:
        merged = OmegaConf.merge(base, overrides)
    except ConfigKeyError as error:
        raise UserError(where, overrides, str(error).splitlines()[0]) from error
    assert isinstance(merged, DictConfig)
    OmegaConf.set_struct(merged, False)
    rollout, trainer = merged.actor_rollout_ref.rollout, merged.trainer
    # the engine's actors are named after the policy: both number their replicas from 0
    rollout.custom = {**(rollout.get("custom") or {}), "role": name}
    # the agent loop grades; verl's reward workers have fixed names and would clash
    merged.reward.num_workers = 0
    trainer.v1.trainer_mode = "sync"
    trainer.checkpoint_callback_class = None
    trainer.default_local_dir = str(Path(trainer.default_local_dir).absolute() / name)
    if serves_only:
        _place_server(merged, where)
    place_engine(merged)
    resolved = plain_dict(merged)
    del resolved["longshort"]
    if name == TIED:
        _count_both_rows(resolved)
    return resolved


def _count_both_rows(policy: dict[str, Any]) -> None:
    """Let verl count every problem twice, as the two prompts that it is to a policy that plays both roles.

    A batch, and a mini batch, then has the rows of both roles of as many problems as the run says.
    """
    for block in (policy["data"], policy["actor_rollout_ref"]["actor"], policy["critic"]):
        for size in ("train_batch_size", "ppo_mini_batch_size"):
            if size in block:
                block[size] *= 2


def _place_server(config: DictConfig, where: str) -> None:
    rollout = config.actor_rollout_ref.rollout
    # verl's default makes random weights and waits for a trainer to send the real ones
    rollout.load_format = "auto"
    if rollout.nnodes:
        return
    if config.trainer.device != "cpu":
        remedy = "this policy learns in no round and is served on devices of its own: give their number"
        raise UserError(f"{where}.actor_rollout_ref.rollout.nnodes", rollout.nnodes, remedy)
    rollout.nnodes, rollout.n_gpus_per_node = 1, 1


def place_engine(config: DictConfig) -> None:
    """Put in place, in verl's configuration of one policy, what its rollout engine needs.

    One that takes its memory at once reserves it for sequences of `max_model_len`: rows, unless a run says otherwise.
    """
    rollout = config.actor_rollout_ref.rollout
    if (known := ROLLOUTS.get(rollout.name)) is None:
        return
    with open_dict(rollout):
        if known.engine.reserves_memory and rollout.max_model_len is None:
            rollout.max_model_len = config.data.max_prompt_length + config.data.max_response_length
        if config.trainer.device == "cpu":
            rollout.update(known.on_cpu)


def point_at_checkpoint(config: DictConfig, folder: Path | None) -> None:
    """Let a policy start from `folder`, or from its model when it is None."""
    config.trainer.resume_mode = "disable" if folder is None else "resume_path"
    config.trainer.resume_from_path = None if folder is None else str(folder)


def has_critic(policy: Mapping[str, Any]) -> bool:
    """Whether a policy has a critic, as verl decides it."""
    enabled = policy["critic"].get("enable")
    return policy["algorithm"]["adv_estimator"] == "gae" if enabled is None else bool(enabled)


def _check_keys(overrides: Mapping[str, Any], base: DictConfig, where: str) -> None:
    for key, value in leaves(overrides):
        if key in _DERIVED:
            raise UserError(f"{where}.{key}", value, f"the pair decides this; set {key} for the run")
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(base, parent) if parent else base
        known = [str(name) for name in node.keys()] if isinstance(node, DictConfig) else []  # noqa: SIM118
        is_free = isinstance(node, DictConfig) and not node
        if not is_free and leaf not in known:
            near = get_close_matches(leaf, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "look it up in verl's ppo_trainer config"
            raise UserError(f"{where}.{key}", value, f"verl has no such key; {hint}")
