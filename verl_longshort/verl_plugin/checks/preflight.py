"""Checks a training run before anything heavy is imported, started or written. Imports no verl and no vLLM.

Every check ends in a `UserError` that names the key, the value and the remedy. `data_checks` has those of the data.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from omegaconf import DictConfig

from verl_longshort.base.dry_run import gpus_per_node, planning
from verl_longshort.base.files import check_model
from verl_longshort.config.pair import Pools, plain_dict, policy_key, settings_of
from verl_longshort.config.single_model import single_settings_of
from verl_longshort.core.single_model import SingleMode
from verl_longshort.engines.registry import DEFAULT, spec_of
from verl_longshort.verl_plugin.checks.data_checks import check_data
from verl_longshort.verl_plugin.checks.keys import PAIR_LOOP, SINGLE_LOOP
from verl_longshort.verl_plugin.checks.loggers import check_loggers
from verl_longshort.verl_plugin.checks.policy_checks import check_policy
from verl_longshort.verl_plugin.checks.policy_config import build_policy_configs
from verl_longshort.verl_plugin.checks.prompts import PromptMaker
from verl_longshort.verl_plugin.checks.resume import check_single_checkpoint, check_subsets, checked_resume
from verl_longshort.verl_plugin.rollout.registry import ROLLOUTS
from verl_longshort.verl_plugin.run.cluster import check_address, check_sockets, requested_address

_ROLLOUT = "actor_rollout_ref.rollout"
_MOST_MEMORY = 0.95  # of a device, for both engines: CUDA contexts and the trainers need some


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What the checks of a run leave."""

    policies: dict[str, Any]
    """The resolved configuration of each policy; none for a single model."""
    makers: tuple[PromptMaker, ...]
    """How each model's prompts are made."""
    notes: list[str]
    """What a user should know about it, in full sentences without a full stop."""


def check(config: DictConfig) -> Checked:
    """Check the composed, unresolved configuration of a pair's run.

    Raises:
        UserError: for the first thing that cannot work.
    """
    settings = settings_of(config)
    check_loggers(config.trainer.logger)
    policies = build_policy_configs(config, settings.schedule, tied=settings.tied)
    makers = []
    for name, roles in settings.players.items():
        key = f"{policy_key(name)}.actor_rollout_ref.model.path"
        model = policies[name]["actor_rollout_ref"]["model"]
        check_model(str(model["path"]), key=key)
        learns = settings.schedule.updates(roles[0]) > 0
        check_policy(policies[name], f"{policy_key(name)}.", model_key=key, learns=learns)
        makers += [_maker(role.value, key, model, system=settings.prompts.for_role(role)) for role in roles]
    check_subsets(config)
    shared = settings.pools is Pools.SHARED
    check_rollouts(policies, shared=shared, device=config.trainer.device)
    check_devices(config, pools=1 if shared else 2)
    check_installed(policies)
    resume = checked_resume(config, settings, policies)
    if resume.step is not None:
        _check_shards(policies, resume.source.root, resume.step)
    notes = check_data(config, makers, agent_loop=PAIR_LOOP, prompt_key="longshort.environment.prompts.{role}")
    return Checked(policies=policies, makers=tuple(makers), notes=[*resume.notes, *notes])


def check_single(config: DictConfig) -> Checked:
    """As `check`, of a single model's run."""
    settings = single_settings_of(config)
    check_loggers(config.trainer.logger)
    _check_single_resume(config.trainer)
    check_single_checkpoint(config.trainer)
    check_model(settings.model, key="longshort.model")
    check_subsets(config)
    policy = {name: plain_dict(config[name]) for name in ("actor_rollout_ref", "critic", "algorithm", "trainer")}
    check_policy(policy, "", model_key="longshort.model", learns=True)
    check_devices(config, pools=1)
    maker = _maker(
        "model",
        "actor_rollout_ref.model.path",
        plain_dict(config.actor_rollout_ref.model),
        system=settings.system_prompt,
        opening=settings.mode.opening,
        protocol=settings.mode is SingleMode.JOINT,
    )
    notes = check_data(config, [maker], agent_loop=SINGLE_LOOP, prompt_key="longshort.system_prompt")
    return Checked(policies={}, makers=(maker,), notes=notes)


def _check_single_resume(trainer: DictConfig) -> None:
    given = trainer.resume_from_path
    folder = Path(given or "")
    if trainer.resume_mode == "resume_path" and not (
        given and folder.name.startswith("global_step_") and folder.is_dir()
    ):
        raise UserError("trainer.resume_from_path", given, "is no checkpoint: give a folder global_step_<n>")


def _maker(
    role: str, key: str, model: Mapping[str, Any], *, system: str, opening: str = "", protocol: bool = True
) -> PromptMaker:
    """As verl's `HFModelConfig` loads the tokenizer."""
    return PromptMaker(
        role=role,
        key=key,
        path=str(model["tokenizer_path"] or model["path"]),
        trust_remote_code=bool(model["trust_remote_code"]),
        chat_template=model["custom_chat_template"],
        system=system,
        opening=opening,
        protocol=protocol,
    )


def check_devices(config: DictConfig, *, pools: int) -> None:
    """Raise UserError when a node has too few GPUs for so many resource pools, or the nodes are not named."""
    if not planning():
        check_address(config)
        check_sockets(config, os.environ)
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
    for name, policy in policies.items():
        ranks = policy["trainer"]["nnodes"] * policy["trainer"]["n_gpus_per_node"]
        folder = root / name / f"global_step_{step}" / "actor"
        there = {path.name for path in folder.glob("model_world_size_*_rank_*.pt")}
        missing = {f"model_world_size_{ranks}_rank_{rank}.pt" for rank in range(ranks)} - there
        if there and missing:
            remedy = (
                f"the checkpoint in {folder} lacks {min(missing)}: give as many ranks as wrote it "
                f"({min(there).split('_')[3]}), and a folder that all nodes share"
            )
            raise UserError("trainer.nnodes x trainer.n_gpus_per_node", ranks, remedy)


def check_rollouts(policies: Mapping[str, Any], *, shared: bool, device: str) -> None:
    """Check the rollout engines in the resolved configurations of the policies, by name.

    Engines on one device share its memory (`shared` pools, and `device` is `trainer.device`), and servers of
    verl's other engines have names that two policies of one run would share. Raises UserError for what cannot work.
    """
    for name, policy in policies.items():
        _check_rollout(name, policy)
    rollouts = [policy["actor_rollout_ref"]["rollout"] for policy in policies.values()]
    if shared and device != "cpu" and not any(rollout["nnodes"] for rollout in rollouts):
        shares = [r["gpu_memory_utilization"] for r in rollouts if spec_of(r["name"]).reserves_memory]
        if len(shares) > 1 and sum(shares) > _MOST_MEMORY:
            remedy = (
                f"both engines are awake together on the same GPUs: their shares may be {_MOST_MEMORY} in all; "
                "give 0.4 each, or longshort.pools=separate"
            )
            raise UserError(f"{_ROLLOUT}.gpu_memory_utilization", " + ".join(map(str, shares)), remedy)


def _check_rollout(name: str, policy: Mapping[str, Any]) -> None:
    rollout = policy["actor_rollout_ref"]["rollout"]
    where = f"{policy_key(name)}.{_ROLLOUT}"
    if (known := ROLLOUTS.get(rollout["name"])) is None:
        raise UserError(f"{where}.name", rollout["name"], f"a pair's engines are {' or '.join(ROLLOUTS)}")
    for key, value, remedy in known.refused(rollout):
        raise UserError(f"{where}.{key}", value, remedy)
    # vLLM silently truncates a turn where prompt and turn exceed the model's length
    needed = policy["data"]["max_prompt_length"] + policy["data"]["max_response_length"]
    path = Path(policy["actor_rollout_ref"]["model"]["path"]).expanduser() / "config.json"
    positions = json.loads(path.read_text()).get("max_position_embeddings") if path.is_file() else None
    if positions is not None and positions < needed:
        remedy = f"the model of the {name} policy has {positions} positions; lower one or take another model"
        raise UserError("data.max_prompt_length + data.max_response_length", needed, remedy)


def check_installed(policies: Mapping[str, Any]) -> None:
    """Raise UserError when a policy asks for an engine that this machine lacks, unless it only plans."""
    for policy in policies.values():
        engine = spec_of(policy["actor_rollout_ref"]["rollout"]["name"])
        if not planning() and not engine.installed:
            remedy = f"{engine.title} is not installed: {engine.install}, or set {DEFAULT.name}"
            raise UserError(f"{_ROLLOUT}.name", engine.name, remedy)
