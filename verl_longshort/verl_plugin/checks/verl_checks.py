"""Finds before the start what verl would reject only minutes into a run.

`check_by_verl` is verl's own check. `check_ppo` builds verl's own typed objects from a policy's configuration and
checks what verl asserts in its workers; `check_dataclasses` does the first half for any configuration. All import
verl, no CUDA.
"""

import importlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from hydra.errors import HydraException
from longshort_reward.errors import UserError
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from verl_longshort.base.dry_run import planning

_REFUSALS = (AssertionError, ValueError, TypeError, NotImplementedError, OmegaConfBaseException, HydraException)
# Hydra instantiates these; the reference's keys are renamed first, as verl's worker does it
_PARTS = ("actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.ref", "algorithm", "critic")
_MODELS = ("actor_rollout_ref.model", "critic.model")
_REFERENCE_NAMES = {
    "log_prob_micro_batch_size": "ppo_micro_batch_size",
    "log_prob_micro_batch_size_per_gpu": "ppo_micro_batch_size_per_gpu",
    "log_prob_use_dynamic_bsz": "use_dynamic_bsz",
    "log_prob_max_token_len_per_gpu": "ppo_max_token_len_per_gpu",
}


def check_by_verl(config: DictConfig, key: str) -> None:
    """Let verl check a resolved configuration of its own. Raises UserError for `key` when verl rejects it."""
    from verl.trainer.ppo.utils import need_reference_policy
    from verl.utils.config import validate_config

    try:
        reference, critic = need_reference_policy(config), has_critic(config)
        # it prints that all is well
        with redirect_stdout(io.StringIO()), _no_warnings():
            # the critic's part loads its model, which need not exist yet when a run is only planned
            validate_config(config=config, use_reference_policy=reference, use_critic=critic and not planning())
    except _REFUSALS as error:
        raise UserError(key, "refused by verl", " ".join(str(error.__cause__ or error).split())) from error


def has_critic(config: DictConfig) -> bool:
    """Whether a policy of this configuration has a critic: verl's answer, without its warning that GRPO has none."""
    from verl.trainer.ppo.utils import need_critic

    with _no_warnings():
        return bool(need_critic(config))


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_ppo(config: DictConfig, where: str, *, learns: bool = True) -> None:
    """Check verl's whole, resolved PPO configuration of one policy, which `learns` or only serves.

    `where` is put before the keys in messages. Raises UserError for the first key that cannot work.
    """
    typed = config.copy()
    own = typed.actor_rollout_ref
    with open_dict(typed):
        own.ref.ppo_mini_batch_size = own.actor.ppo_mini_batch_size
        for old, new in _REFERENCE_NAMES.items():
            own.ref[new] = own.ref.pop(old, None)
        # its object would load the model, which is checked by itself
        typed.critic.pop("model")
    check_dataclasses(config, (), where=where, models=_MODELS)
    check_dataclasses(typed, _PARTS, where=where)
    _check_engine(config, where, learns=learns)
    if learns:
        _check_batches(config, where)
        _check_names(config, where)
        _check_rollout_correction(config, where)


def check_dataclasses(config: DictConfig, parts: Sequence[str], *, where: str = "", models: Sequence[str] = ()) -> None:
    """Let verl build its typed objects of `parts`.

    A model's object would load its tokenizer, so of `models` only the names and types of keys are checked. Raises
    UserError naming the part, after `where`, that verl rejects.
    """
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.config import HFModelConfig

    for part in (*models, *parts):
        node = OmegaConf.select(config, part)
        try:
            if part in models:
                OmegaConf.merge(OmegaConf.structured(HFModelConfig), node)
            else:
                omega_conf_to_dataclass(node)
        except _REFUSALS as error:
            reason = str(error.__cause__ or error).strip().splitlines()
            raise UserError(f"{where}{part}", "refused by verl", reason[0] if reason else "") from error


def _check_engine(config: DictConfig, where: str, *, learns: bool) -> None:
    rollout, trainer = config.actor_rollout_ref.rollout, config.trainer
    gpus = trainer.nnodes * trainer.n_gpus_per_node if learns else rollout.nnodes * rollout.n_gpus_per_node
    split = rollout.tensor_model_parallel_size * rollout.data_parallel_size
    if gpus % split:
        key = f"{where}actor_rollout_ref.rollout.tensor_model_parallel_size"
        remedy = f"engines of {split} GPUs do not fill the {gpus} that the policy has: give a divisor"
        raise UserError(key, rollout.tensor_model_parallel_size, remedy)
    longest = longest_row(config)
    if rollout.max_model_len is not None and rollout.max_model_len < longest:
        remedy = f"trajectories may have {longest} tokens with their prompt: raise it, or leave it null"
        raise UserError(f"{where}actor_rollout_ref.rollout.max_model_len", rollout.max_model_len, remedy)


def _check_batches(config: DictConfig, where: str) -> None:
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    split = sequence_parallel(actor)
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    if gpus % split:
        key = f"{where}actor_rollout_ref.actor.ulysses_sequence_parallel_size"
        raise UserError(key, split, f"must divide the policy's {gpus} GPUs")
    rows, groups = actor.ppo_mini_batch_size * rollout.n, gpus // split
    if rows % groups:
        key = f"{where}actor_rollout_ref.actor.ppo_mini_batch_size"
        remedy = f"times rollout.n = {rows} trajectories, which {groups} GPUs cannot share equally"
        raise UserError(key, actor.ppo_mini_batch_size, remedy)
    longest = longest_row(config)
    for name in ("actor.ppo_max_token_len_per_gpu", "rollout.log_prob_max_token_len_per_gpu"):
        limit = OmegaConf.select(config.actor_rollout_ref, name)
        if actor.use_dynamic_bsz and limit * split < longest:
            remedy = f"must hold the longest trajectory: {longest} tokens with its prompt, over {split} GPUs"
            raise UserError(f"{where}actor_rollout_ref.{name}", limit, remedy)


def _check_rollout_correction(config: DictConfig, where: str) -> None:
    """Raise UserError for keys of verl's rollout correction that its V1 trainer takes and does not read."""
    correction = config.algorithm.rollout_correction
    if correction is None:
        return
    key = f"{where}algorithm.rollout_correction"
    if correction.loss_type != "ppo_clip":
        raise UserError(f"{key}.loss_type", correction.loss_type, "verl's V1 trainer does not read it: use ppo_clip")
    corrects = [name for name in ("rollout_is", "rollout_rs") if correction[name] is not None]
    if correction.bypass_mode and corrects:
        remedy = "is not read with bypass_mode=true, where the engine's log-probs are the old ones: set null, or false"
        raise UserError(f"{key}.{corrects[0]}", correction[corrects[0]], remedy)
    if (correction.bypass_mode or corrects) and not config.actor_rollout_ref.rollout.calculate_log_probs:
        remedy = f"{key} needs the engine's log-probs: set true"
        raise UserError(f"{where}actor_rollout_ref.rollout.calculate_log_probs", False, remedy)


def _check_names(config: DictConfig, where: str) -> None:
    """Raise UserError for a loss, a divergence or an optimizer that verl looks up only when it trains."""
    import torch
    from verl.trainer.ppo.core_algos import get_policy_loss_fn, kl_penalty

    actor = config.actor_rollout_ref.actor
    sample = torch.zeros(1, 1)
    looked_up: list[tuple[str, Any, Callable[[Any], Any]]] = [
        ("actor_rollout_ref.actor.policy_loss.loss_mode", actor.policy_loss.loss_mode, get_policy_loss_fn),
    ]
    if actor.use_kl_loss:
        key = "actor_rollout_ref.actor.kl_loss_type"
        looked_up.append((key, actor.kl_loss_type, lambda name: kl_penalty(sample, sample, name)))
    if config.algorithm.use_kl_in_reward:
        key = "algorithm.kl_penalty"
        looked_up.append((key, config.algorithm.kl_penalty, lambda name: kl_penalty(sample, sample, name)))
    for key, name, look in looked_up:
        try:
            look(name)
        except (ValueError, NotImplementedError) as error:
            raise UserError(
                f"{where}{key}", name, str(error) or "verl has no such divergence; use low_var_kl"
            ) from error
    optim = actor.optim
    if planning():
        # its package need not be on this machine
        return
    try:
        getattr(importlib.import_module(optim.optimizer_impl), optim.optimizer)
    except (ImportError, AttributeError) as error:
        remedy = f"{error}: install its package, or take AdamW of torch.optim"
        key = f"{where}actor_rollout_ref.actor.optim.optimizer"
        raise UserError(key, f"{optim.optimizer_impl}.{optim.optimizer}", remedy) from error


def sequence_parallel(actor: DictConfig) -> int:
    """GPUs that share a sequence: verl takes the actor's own, deprecated key when that is above 1."""
    own = int(actor.get("ulysses_sequence_parallel_size") or 1)
    return own if own > 1 else int(actor.fsdp_config.ulysses_sequence_parallel_size)


def longest_row(config: DictConfig) -> int:
    """Most tokens of a trajectory with its prompt."""
    return int(config.data.max_prompt_length + config.data.max_response_length)
