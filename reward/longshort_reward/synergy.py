"""The synergy reward: one reward per trajectory and role, from the whole group of one problem.

`r = eta EM + lambda FM + mu(step) LM` as in the paper (section 5), plus what the paper leaves open: how to
share it between the two roles. The rules, each with its reason:

* EM and LM are joint (paper): the roles solve the problem, and spend the tokens, together.
* LM is gated on correctness and measured within the group (ours, see `length`).
* FM is each role's own (ours): format is wholly in the hands of the one who writes the turn, so sharing it
  would only add noise to the partner's reward.
* When one role broke the protocol and so ended the trajectory, the *other* role's row is neutral (ours): what
  it wrote was cut short through no fault of its own. Neutral means the mean of that role's other rewards in
  the group, so the advantage is 0 and nobody's baseline moves. A turn or token limit of the whole trajectory
  is nobody's fault: both roles spent it.
* Rethink credit, short only (ours): asking for another thought pays when the answer is right and answering at
  once would have failed, measured as the failure rate of the group's trajectories that did not ask. The paper
  never says when `</rethink>` is right; without a credit, LM alone pushes it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

from longshort_reward.length import length_match
from longshort_reward.protocol import ROLES, Role
from longshort_reward.schedule import RewardWeights


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the reward needs to know of one finished trajectory."""

    correct: bool
    """The final answer matches the ground truth."""
    format_ok: Mapping[str, bool]
    """Per role: all its own turns are well formed. A role that made no turn may be absent."""
    tokens: int
    """Tokens that both roles generated."""
    rethinks: int
    """How often the short role asked for another thought."""
    fault_role: str | None
    """The role that broke the protocol and so ended the trajectory; None when nobody did."""
    stop_reason: str
    """Why the trajectory ended; for the reader, the reward does not use it."""


@dataclass(frozen=True, kw_only=True)
class RoleReward:
    """One role's reward for one trajectory: `total` is learned from, the terms are unweighted, for logs."""

    total: float
    em: float
    fm: float
    lm: float
    rethink: float
    neutral: bool
    """`total` is the mean of the role's other rewards in the group, whatever the terms; see `is_neutral`."""


def synergy_reward(group: Sequence[Outcome], weights: RewardWeights, step: int) -> list[dict[Role, RoleReward]]:
    """Rewards of all trajectories of ONE problem, in the order of `group`, per role.

    Args:
        group: the outcomes, shape (group,).
        weights: of the terms; `weights.mu` is read at `step`.
        step: the trainer's global step.

    Raises:
        ValueError: a token count is negative.
    """
    lengths = length_match([o.tokens for o in group], [o.correct for o in group])
    credit = 1.0 - direct_accuracy(group)
    columns = {}
    for role in ROLES:
        rows = [_own(o, role, lm, credit, weights, step) for o, lm in zip(group, lengths, strict=True)]
        columns[role] = _neutralised(rows)
    return [{role: columns[role][i] for role in ROLES} for i in range(len(group))]


def direct_accuracy(group: Sequence[Outcome]) -> float:
    """Accuracy of the trajectories that answered without asking again; of the whole group when all asked."""
    direct = [o.correct for o in group if o.rethinks == 0] or [o.correct for o in group]
    return sum(direct) / len(direct) if direct else 0.0


def is_neutral(outcome: Outcome, role: Role) -> bool:
    """Whether this row must not teach `role`: its partner ended the trajectory, or it never had a turn."""
    return outcome.fault_role == role.partner or role not in outcome.format_ok


def _own(outcome: Outcome, role: Role, lm: float, credit: float, weights: RewardWeights, step: int) -> RoleReward:
    em = float(outcome.correct)
    fm = float(outcome.format_ok.get(role, False))
    asked_well = role is Role.SHORT and outcome.correct and outcome.rethinks > 0
    rethink = credit if asked_well else 0.0
    total = weights.eta * em + weights.lambda_ * fm + weights.mu.at(step) * lm + weights.rethink * rethink
    return RoleReward(total=total, em=em, fm=fm, lm=lm, rethink=rethink, neutral=is_neutral(outcome, role))


def _neutralised(rows: Sequence[RoleReward]) -> list[RoleReward]:
    totals = [row.total for row in rows if not row.neutral]
    mean = fsum(totals) / len(totals) if totals else 0.0
    return [replace(row, total=mean) if row.neutral else row for row in rows]
