"""The synergy reward: one reward per trajectory and role, from the whole group of one problem.

`r = eta EM + lambda FM + mu(step) LM` as in the paper (section 5), plus what the paper leaves open: how to share it
between the two roles. What each term gives to whom, with its reason, is said in `terms/`. Beyond the terms:

* When one role broke the protocol and so ended the trajectory, the *other* role's row is neutral (ours): what it wrote
  was truncated through no fault of its own. The trainer leaves a neutral row out of what the role learns from; its
  reward is the mean of that role's other rewards in the group, which moves nobody's baseline. A turn or token limit of
  the whole trajectory is nobody's fault: both roles spent it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

from longshort_reward.outcome import Outcome
from longshort_reward.protocol import ROLES, Role
from longshort_reward.weights import RewardWeights


@dataclass(frozen=True, kw_only=True)
class RoleReward:
    """One role's reward for one trajectory."""

    total: float
    """What is learned from."""
    terms: Mapping[str, float]
    """The unweighted terms by name, for logs."""
    neutral: bool
    """`total` is the mean of the role's other rewards in the group, whatever the terms; see `is_neutral`."""


def synergy_reward(group: Sequence[Outcome], weights: RewardWeights, step: int) -> list[dict[Role, RoleReward]]:
    """Rewards of all trajectories of ONE problem, in the order of `group`, per role.

    Args:
        group: the outcomes, shape (group,).
        weights: of the terms, read at `step`.
        step: the trainer's global step.

    Raises:
        ValueError: a token count is negative.
    """
    scored = [(term.name, weight, term.score(group)) for term, weight in weights.weighted(step)]
    columns = {}
    for role in ROLES:
        rows = []
        for index, outcome in enumerate(group):
            terms = {name: scores[index].get(role, 0.0) for name, _, scores in scored}
            total = 0.0
            for name, weight, _ in scored:
                total += weight * terms[name]
            rows.append(RoleReward(total=total, terms=terms, neutral=is_neutral(outcome, role)))
        others = [row.total for row in rows if not row.neutral]
        mean = fsum(others) / len(others) if others else 0.0
        columns[role] = [replace(row, total=mean) if row.neutral else row for row in rows]
    return [{role: columns[role][index] for role in ROLES} for index in range(len(group))]


def is_neutral(outcome: Outcome, role: Role) -> bool:
    """Whether this row must not teach `role`: its partner ended the trajectory, or it never had a turn."""
    return outcome.fault_role == role.partner or role not in outcome.format_ok
