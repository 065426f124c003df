"""Checks what a policy's own verl settings say about how it learns: estimator, filtering of groups, warm-up."""

from collections.abc import Sequence

from longshort_reward.errors import UserError
from omegaconf import DictConfig

from verl_longshort.verl_plugin.checks.policy_config import has_critic

REWARD = "reward"
"""The metric of dynamic sampling that is what a row is learned from; any other is one of its facts."""

_ALONE = ("gae", "reinforce_plus_plus")
"""verl's estimators that judge each row by itself; all others compare the rows of a group."""

_SYNTHETIC = "the synthetic rows with which verl fills a batch"
_UNUSABLE = {
    "remax": "it needs a greedy answer to each problem, which verl's V1 trainer does not ask for",
    "optimal_token_baseline": "it needs sum_pi_squared, which verl's V1 trainer does not compute",
    "tir_optimal_token_baseline": "it needs sum_pi_squared, which verl's V1 trainer does not compute",
    "grpo_passk": f"it fails where {_SYNTHETIC} are a single one",
    "opo": f"its baseline of {_SYNTHETIC} is not a number",
    "gpg": f"it counts {_SYNTHETIC} as trajectories that earned nothing",
}
_USABLE = "grpo, gdpo, rloo, reinforce_plus_plus, reinforce_plus_plus_baseline or gae"


def check_estimator(config: DictConfig, where: str) -> None:
    """Check the advantage estimator of a policy and the keys that belong to it.

    `where` is put before the keys. Raises UserError for what verl cannot do with our rows, or would ignore.
    """
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    own = config.algorithm
    name = str(own.adv_estimator)
    key = f"{where}algorithm.adv_estimator"
    if name in _UNUSABLE:
        raise UserError(key, name, f"{_UNUSABLE[name]}; use {_USABLE}")
    try:
        get_adv_estimator_fn(name)
    except ValueError as error:
        raise UserError(key, name, f"verl has no such estimator; use {_USABLE}") from error
    if name == "grpo_vectorized" and not own.norm_adv_by_std_in_grpo:
        remedy = "verl's grpo_vectorized divides by the deviation all the same; use grpo"
        raise UserError(f"{where}algorithm.norm_adv_by_std_in_grpo", False, remedy)
    if name == "gdpo":
        for given in ("gdpo_reward_keys", "gdpo_reward_weights"):
            if own.get(given) is not None:
                remedy = "the terms and weights are those of longshort.reward; leave it out"
                raise UserError(f"{where}algorithm.{given}", own.get(given), remedy)
        if own.use_kl_in_reward:
            remedy = "gdpo looks at the terms of the reward only; use actor_rollout_ref.actor.use_kl_loss"
            raise UserError(f"{where}algorithm.use_kl_in_reward", True, remedy)


PAIR_FACTS = ("acc", "tokens", "turns", "rethinks")
SINGLE_FACTS = ("acc", "tokens", "format")


def check_filter(config: DictConfig, facts: Sequence[str]) -> None:
    """Check `algorithm.filter_groups` of a run whose trajectories have the numeric `facts`.

    Raises UserError for a rule that cannot be followed, or that might sample for ever.
    """
    chosen, key = config.algorithm.filter_groups, "algorithm.filter_groups"
    if chosen is None:
        raise UserError(key, None, f"leave it as it is; {key}.enable=false switches it off")
    if not chosen.enable:
        return
    if chosen.metric not in (REWARD, *facts):
        raise UserError(f"{key}.metric", chosen.metric, f"use {', '.join((REWARD, *facts))}")
    for name, least in (("max_num_gen_batches", 2), ("max_inflight_gen_batches", 1)):
        value = chosen[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            remedy = f"a step may generate or have in flight so many times its prompts: give a number from {least} on"
            raise UserError(f"{key}.{name}", value, remedy)
    if config.actor_rollout_ref.rollout.n < 2:
        remedy = "a group of one has nothing that could vary: give 2 or more, or do not filter groups"
        raise UserError("actor_rollout_ref.rollout.n", config.actor_rollout_ref.rollout.n, remedy)


def compares(estimator: str) -> bool:
    """Whether an advantage estimator of verl compares the trajectories of a problem."""
    return estimator not in _ALONE


def check_warmup(config: DictConfig, where: str, *, updates: int) -> None:
    """Check `trainer.critic_warmup` of a policy that learns in `updates` steps.

    verl does not update the policy in its first `critic_warmup - 1` steps, whether there is a critic or not. `where` is
    put before the key. Raises UserError when the policy would lose updates for nothing, or all of them.
    """
    warmup = config.trainer.critic_warmup
    remedy: str | None = None
    if warmup > 1 and not has_critic(config):
        remedy = f"{config.algorithm.adv_estimator} has no critic, and the policy would not learn meanwhile; set 0"
    elif warmup > updates:
        remedy = f"the policy learns in {updates} steps, so it would never be updated; set fewer"
    if remedy:
        raise UserError(f"{where}trainer.critic_warmup", warmup, remedy)
