"""Checks the rollout engines of both policies before anything heavy is imported or started.

Two engines on one device share its memory, and verl's engines other than these two have names that two
policies of one run would share. Nothing here imports verl or vLLM.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role

from verl_longshort.base.dry_run import dry_run

ROLLOUTS = ("vllm", "transformers")
_ROLLOUT = "actor_rollout_ref.rollout"
_MOST_MEMORY = 0.95  # of a device, for both engines: CUDA contexts and the trainers need some
_OFF = {
    "disaggregation": "prefill and decode servers are not supported for a pair; set enabled to false",
    "prometheus": "verl's configuration file of Prometheus holds one policy's servers; set enable to false",
}


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
    """Raise UserError when a policy asks for vLLM on a machine without it; not in a dry run."""
    if dry_run() is not None or importlib.util.find_spec("vllm") is not None:
        return
    for role in ROLES:
        rollout = policies[role.value]["actor_rollout_ref"]["rollout"]
        if rollout["name"] == "vllm":
            remedy = "vLLM is not installed: pip install 'verl-longshort[gpu]', or set transformers"
            raise UserError(f"{_ROLLOUT}.name", "vllm", remedy)


def _check_policy(role: Role, policy: Mapping[str, Any]) -> None:
    rollout = policy["actor_rollout_ref"]["rollout"]
    if rollout["name"] not in ROLLOUTS:
        raise _error(role, "name", rollout["name"], f"a pair's engines are {' or '.join(ROLLOUTS)}")
    if rollout["name"] == "vllm":
        for block, remedy in _OFF.items():
            key = "enabled" if block == "disaggregation" else "enable"
            if rollout.get(block, {}).get(key):
                raise _error(role, f"{block}.{key}", True, remedy)
        if rollout["free_cache_engine"] and not rollout.get("enable_sleep_mode", True):
            raise _error(role, "enable_sleep_mode", False, "free_cache_engine needs it; set true")
    _check_length(role, policy)


def _check_length(role: Role, policy: Mapping[str, Any]) -> None:
    # vLLM cuts a turn short in silence where prompt and turn pass the model's length
    needed = policy["data"]["max_prompt_length"] + policy["data"]["max_response_length"]
    path = Path(policy["actor_rollout_ref"]["model"]["path"]).expanduser() / "config.json"
    positions = json.loads(path.read_text()).get("max_position_embeddings") if path.is_file() else None
    if positions is not None and positions < needed:
        remedy = f"the model of the {role} role has {positions} positions; lower one or take another model"
        raise UserError("data.max_prompt_length + data.max_response_length", needed, remedy)


def _check_memory(policies: Mapping[str, Any]) -> None:
    rollouts = [policies[role.value]["actor_rollout_ref"]["rollout"] for role in ROLES]
    shares = [rollout["gpu_memory_utilization"] for rollout in rollouts if rollout["name"] == "vllm"]
    if len(shares) == len(ROLES) and sum(shares) > _MOST_MEMORY:
        remedy = (
            f"both engines are awake together on the same GPUs: their shares may be {_MOST_MEMORY} in all; "
            "give 0.4 each, or longshort.pools=separate"
        )
        raise UserError(f"{_ROLLOUT}.gpu_memory_utilization", " + ".join(map(str, shares)), remedy)


def _error(role: Role, key: str, value: object, remedy: str) -> UserError:
    return UserError(f"longshort.policies.{role}.{_ROLLOUT}.{key}", value, remedy)
