"""Checks the rollout engines of both policies before anything heavy is imported or started.

Two engines on one device share its memory, and the servers of verl's other engines have names that two policies of
one run would share. Nothing here imports verl or vLLM.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role

from verl_longshort.base.dry_run import planning
from verl_longshort.engines.registry import DEFAULT, spec_of
from verl_longshort.verl_plugin.rollout.registry import ROLLOUTS

_ROLLOUT = "actor_rollout_ref.rollout"
_MOST_MEMORY = 0.95  # of a device, for both engines: CUDA contexts and the trainers need some


def check_rollouts(policies: Mapping[str, Any], *, shared: bool, device: str) -> None:
    """Check the resolved configuration of each policy.

    Args:
        policies: by role.
        shared: both policies on the same devices.
        device: `trainer.device`.

    Raises:
        UserError: for the first thing that cannot work.
    """
    for role in ROLES:
        _check_policy(role, policies[role.value])
    together = [role for role in ROLES if not policies[role.value]["actor_rollout_ref"]["rollout"]["nnodes"]]
    if shared and device != "cpu" and len(together) > 1:
        _check_memory(policies)


def check_installed(policies: Mapping[str, Any]) -> None:
    """Raise UserError when a policy asks for an engine that this machine lacks, unless it only plans."""
    for role in ROLES:
        engine = spec_of(policies[role.value]["actor_rollout_ref"]["rollout"]["name"])
        if not planning() and not engine.installed:
            remedy = f"{engine.title} is not installed: {engine.install}, or set {DEFAULT.name}"
            raise UserError(f"{_ROLLOUT}.name", engine.name, remedy)


def _check_policy(role: Role, policy: Mapping[str, Any]) -> None:
    rollout = policy["actor_rollout_ref"]["rollout"]
    where = f"longshort.policies.{role}.{_ROLLOUT}"
    if (known := ROLLOUTS.get(rollout["name"])) is None:
        raise UserError(f"{where}.name", rollout["name"], f"a pair's engines are {' or '.join(ROLLOUTS)}")
    for key, value, remedy in known.refused(rollout):
        raise UserError(f"{where}.{key}", value, remedy)
    _check_length(role, policy)


def _check_length(role: Role, policy: Mapping[str, Any]) -> None:
    # vLLM silently truncates a turn where prompt and turn exceed the model's length
    needed = policy["data"]["max_prompt_length"] + policy["data"]["max_response_length"]
    path = Path(policy["actor_rollout_ref"]["model"]["path"]).expanduser() / "config.json"
    positions = json.loads(path.read_text()).get("max_position_embeddings") if path.is_file() else None
    if positions is not None and positions < needed:
        remedy = f"the model of the {role} role has {positions} positions; lower one or take another model"
        raise UserError("data.max_prompt_length + data.max_response_length", needed, remedy)


def _check_memory(policies: Mapping[str, Any]) -> None:
    rollouts = [policies[role.value]["actor_rollout_ref"]["rollout"] for role in ROLES]
    shares = [r["gpu_memory_utilization"] for r in rollouts if spec_of(r["name"]).reserves_memory]
    if len(shares) == len(ROLES) and sum(shares) > _MOST_MEMORY:
        remedy = (
            f"both engines are awake together on the same GPUs: their shares may be {_MOST_MEMORY} in all; "
            "give 0.4 each, or longshort.pools=separate"
        )
        raise UserError(f"{_ROLLOUT}.gpu_memory_utilization", " + ".join(map(str, shares)), remedy)
