"""How a policy learns: whether its advantages compare a group, its updates of a batch, its learning rate."""

from collections.abc import Sequence

from omegaconf import DictConfig, open_dict

from verl_longshort.verl_plugin.checks.learning_checks import compares


def compares_group(config: DictConfig) -> bool:
    """Whether the advantages of a policy compare the trajectories of a problem, of which there are several."""
    return compares(config.algorithm.adv_estimator) and config.actor_rollout_ref.rollout.n > 1


def spread(kinds: Sequence[int], *, ranks: int, updates: int) -> list[int]:
    """An order of a batch's rows in which each of its updates has as many rows of a kind as any other, or one more.

    verl puts its synthetic rows behind the real ones, so that a step's last update could be made from a single row.

    Args:
        kinds: of each row, in verl's order: a part for each rank, each cut into `updates` mini batches.
        ranks, updates: both divide the rows.
    """
    part = len(kinds) // ranks
    order: list[int] = []
    for begin in range(0, len(kinds), part):
        rows = sorted(range(begin, begin + part), key=lambda row: kinds[row])
        order += [row for pile in range(updates) for row in rows[pile::updates]]
    return order


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
