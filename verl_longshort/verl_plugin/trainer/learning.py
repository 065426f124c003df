"""What a policy's own verl settings say about how it learns: advantage estimators, warm-up, learning rate."""

from collections.abc import Sequence

from longshort_reward.errors import UserError
from omegaconf import DictConfig, open_dict

from verl_longshort.verl_plugin.trainer.group_reward import REWARD
from verl_longshort.verl_plugin.trainer.policy_config import has_critic

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


def compares_group(config: DictConfig) -> bool:
    """Whether the advantages of a policy compare the trajectories of a problem, of which there are several."""
    return compares(config.algorithm.adv_estimator) and config.actor_rollout_ref.rollout.n > 1


def spread(synthetic: Sequence[bool], *, ranks: int, updates: int) -> list[int]:
    """An order of a batch's rows in which each of its updates has as many real rows as any other, or one more.

    verl puts its synthetic rows behind the real ones, so that a step's last update could be made from a single row.

    Args:
        synthetic: of each row, in verl's order: a part for each rank, each cut into `updates` mini batches.
        ranks, updates: both divide the rows.
    """
    part = len(synthetic) // ranks
    order: list[int] = []
    for begin in range(0, len(synthetic), part):
        rows = sorted(range(begin, begin + part), key=lambda row: synthetic[row])
        order += [row for pile in range(updates) for row in rows[pile::updates]]
    return order


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


def set_horizon(optim: DictConfig, updates: int) -> None:
    """Make a learning-rate schedule of verl's last for `updates` updates (in place), counted from 1 to `updates`.

    verl counts from 0, so that the first update of a warm-up has the learning rate 0 and teaches nothing. Its
    `zero_indexed_step: false` counts from 1, for the cosine only, and would give that 0 to the last update; hence a
    horizon of one more. A constant rate behind a warm-up is the cosine that falls to all of its rate. With
    `zero_indexed_step: true` the schedule is verl's own.
    """
    with open_dict(optim):
        optim.total_training_steps = updates
        if optim.get("zero_indexed_step", True):
            return
        warmup = optim.lr_warmup_steps if optim.lr_warmup_steps > 0 else int(optim.lr_warmup_steps_ratio * updates)
        if (optim.get("warmup_style") or optim.lr_scheduler_type) == "constant":
            if warmup <= 0:
                return
            optim.update({"lr_scheduler_type": "cosine", "warmup_style": None, "min_lr_ratio": 1.0})
        optim.update({"lr_warmup_steps": warmup, "lr_warmup_steps_ratio": 0.0, "total_training_steps": updates + 1})
