"""Checks one policy's resolved configuration for what its processes would find out a minute later. Imports no verl."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError

from verl_longshort.base.dry_run import gpus_per_node, is_planned, planning
from verl_longshort.engines.registry import ENGINES
from verl_longshort.engines.tokenizers import check_generation_config
from verl_longshort.verl_plugin.checks.policy_config import has_critic

_STRATEGIES = ("fsdp", "fsdp2")
_FLASH = "flash_attention_2"  # verl's default


def check_policy(policy: Mapping[str, Any], where: str, *, model_key: str, learns: bool) -> None:
    """Check strategy, adapters, attention, micro batches and what is saved with the model.

    Args:
        where: put before the keys in messages.
        model_key: setting that names the model.
        learns: False for a policy that is only served.

    Raises:
        UserError: for the first that cannot work.
    """
    if not learns:
        return
    strategy = policy["actor_rollout_ref"]["actor"]["strategy"]
    if strategy not in _STRATEGIES:
        remedy = f"checkpoints and exports are made for {' and '.join(_STRATEGIES)}: take one of them"
        raise UserError(f"{where}actor_rollout_ref.actor.strategy", strategy, remedy)
    _check_adapter(policy, where)
    _check_attention(policy, where)
    _check_micro_batches(policy, where)
    path = str(policy["actor_rollout_ref"]["model"]["path"])
    if not is_planned(path) and not (planning() and path.count("/") == 1):
        check_generation_config(path, key=model_key)


def _check_adapter(policy: Mapping[str, Any], where: str) -> None:
    own = policy["actor_rollout_ref"]
    model, engine = own["model"], ENGINES.get(own["rollout"]["name"])
    rank, adapter = model["lora_rank"], model["lora_adapter_path"]
    if adapter is not None:
        _check_adapter_folder(adapter, rank, f"{where}actor_rollout_ref.model")
    if rank and not model["lora"]["merge"] and engine is not None and not engine.takes_adapters:
        remedy = f"{engine.title} servers take whole weights only, no LoRA adapters: set true"
        raise UserError(f"{where}actor_rollout_ref.model.lora.merge", False, remedy)


def _check_adapter_folder(adapter: str, rank: int, where: str) -> None:
    if not rank:
        remedy = f"verl trains all weights without {where}.lora_rank: give the adapter's rank"
        raise UserError(f"{where}.lora_adapter_path", adapter, remedy)
    file = Path(adapter).expanduser() / "adapter_config.json"
    if is_planned(file.parent):
        return
    if not file.is_file():
        raise UserError(f"{where}.lora_adapter_path", adapter, "has no adapter_config.json: give a folder of peft's")
    if (own := json.loads(file.read_text(encoding="utf-8")).get("r")) != rank:
        raise UserError(f"{where}.lora_rank", rank, f"the adapter in {adapter} has {own}: give that")


def _check_attention(policy: Mapping[str, Any], where: str) -> None:
    chosen = str((policy["actor_rollout_ref"]["model"]["override_config"] or {}).get("attn_implementation", _FLASH))
    here = not planning() and policy["trainer"]["device"] == "cuda" and gpus_per_node() > 0
    if here and chosen == _FLASH and importlib.util.find_spec("flash_attn") is None:
        key = f"+{where}actor_rollout_ref.model.override_config.attn_implementation"
        raise UserError(key, chosen, "flash_attn is not installed: pip install flash-attn, or set sdpa")


def _check_micro_batches(policy: Mapping[str, Any], where: str) -> None:
    own, critic = policy["actor_rollout_ref"], policy["critic"]
    actor = own["actor"]
    parts = [("actor_rollout_ref.actor", actor, "ppo_micro_batch_size", "use_dynamic_bsz")]
    scored = ("log_prob_micro_batch_size", "log_prob_use_dynamic_bsz")
    parts.append(("actor_rollout_ref.rollout", own["rollout"], *scored))
    if actor["use_kl_loss"] or policy["algorithm"].get("use_kl_in_reward"):
        parts.append(("actor_rollout_ref.ref", own["ref"], *scored))
    if has_critic(policy):
        parts.append(("critic", critic, "ppo_micro_batch_size", "use_dynamic_bsz"))
    for part, block, name, dynamic in parts:
        if not block[dynamic] and block[name] is None and block[f"{name}_per_gpu"] is None:
            key = f"{where}{part}.{name}_per_gpu"
            remedy = f"is needed, because {part}.{dynamic} is false: give a number of trajectories"
            raise UserError(key, "null", remedy)
