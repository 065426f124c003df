"""From a batch of trajectories to one reward per role and trajectory, and the step's metrics. Nothing here knows verl.

The length term and the credit rules compare all trajectories of one problem, so they are computed here, where
groups are complete, from the functions of `longshort_reward` (paper section 5). A single model is a pair with one
role: a control differs in nothing but being alone.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from longshort_reward import Outcome, RewardWeights, RoleReward, synergy_reward
from longshort_reward.protocol import ROLES, Role

from verl_longshort.core.environment import StopReason
from verl_longshort.verl_plugin.checks.learning_checks import REWARD

Facts = Mapping[str, Any]
"""What the agent loop recorded of one trajectory."""


@dataclass(frozen=True, kw_only=True)
class ReplayKey:
    """A key of the replay buffer, `{uid}_{session}_{index of the role}`; the index of a single model is 0."""

    group: str
    session: str
    role: Role

    @classmethod
    def of(cls, key: str) -> "ReplayKey":
        """Read a key."""
        group, session, index = key.rsplit("_", 2)
        return cls(group=group, session=f"{group}_{session}", role=ROLES[int(index)])


def reward_rows(
    keys: Sequence[str], facts: Sequence[Facts], weights: RewardWeights, step: int
) -> dict[str, RoleReward]:
    """Key -> reward of every row, with its terms.

    Args:
        keys: row keys; every session must be there once per role, and all sessions of a problem: LM compares them.
        facts: of each row's trajectory, in the same order.
        weights: of the terms, read at the training step `step`.
    """
    parsed = {key: ReplayKey.of(key) for key in keys}
    groups: dict[str, dict[str, Facts]] = defaultdict(dict)
    for key, fact in zip(parsed.values(), facts, strict=True):
        groups[key.group].setdefault(key.session, fact)
    by_session: dict[str, Mapping[Role, RoleReward]] = {}
    for group in groups.values():
        rewards = synergy_reward([Outcome.from_facts(fact) for fact in group.values()], weights, step)
        by_session.update(zip(group, rewards, strict=True))
    return {name: by_session[key.session][key.role] for name, key in parsed.items()}


@dataclass(frozen=True, kw_only=True)
class TeachingRows:
    """The rows of one role that its policy learns from, and how many it does not, by reason."""

    keys: tuple[str, ...]
    neutral: int
    """Rows without credit or blame (`RoleReward.neutral`), and rows without a token of the role's own."""
    alone: int
    """Rows that have no other row of their group left to be compared with."""

    def metrics(self, role: Role) -> dict[str, float]:
        """Counts of rows, named `{role}/rows/…`."""
        counts = {"learned": len(self.keys), "neutral": self.neutral, "alone": self.alone}
        return {f"{role}/rows/{name}": float(count) for name, count in counts.items()}


def teaching_rows(rewards: Mapping[str, RoleReward], own_tokens: Mapping[str, int], *, compares: bool) -> TeachingRows:
    """Which rows of one role teach its policy.

    A neutral row must not only have the advantage 0: it would narrow its group's standard deviation, and count in the
    means over tokens of the loss, of the KL term and of whatever is normalised over a batch.

    Args:
        rewards: of all the role's rows, by key.
        own_tokens: tokens that the role wrote itself, by key.
        compares: the advantage estimator compares the rows of a group. verl's give a row that is alone in its group
            its whole reward as the advantage, as if the others had earned nothing, so it is left out.
    """
    speaking = [key for key, reward in rewards.items() if not reward.neutral and own_tokens[key]]
    sizes = Counter(ReplayKey.of(key).group for key in speaking)
    kept = [key for key in speaking if not compares or sizes[ReplayKey.of(key).group] > 1]
    return TeachingRows(keys=tuple(kept), neutral=len(rewards) - len(speaking), alone=len(speaking) - len(kept))


def shared_value(
    keys: Sequence[str],
    facts: Sequence[Facts],
    weights: RewardWeights,
    step: int,
    *,
    roles: Iterable[Role],
    metric: str,
) -> float | None:
    """What the rows of ONE group all have in common when the group teaches none of `roles`; None when it teaches one.

    A group teaches a role when its rows of that role, without the neutral ones, differ in `metric`. Where all are
    neutral there is no value to share: 0.

    Args:
        keys, facts, weights, step: see `reward_rows`.
        roles: the step's learners.
        metric: `REWARD`, or the name of a fact.
    """
    rewards = reward_rows(keys, facts, weights, step)
    shared = 0.0
    for role in roles:
        values = {
            rewards[key].total if metric == REWARD else float(fact[metric])
            for key, fact in zip(keys, facts, strict=True)
            if ReplayKey.of(key).role is role and not rewards[key].neutral
        }
        if len(values) > 1:
            return None
        shared = values.pop() if values else shared
    return shared


def role_metrics(rewards: Mapping[str, RoleReward]) -> dict[str, float]:
    """Mean reward, unweighted terms and share of neutral rows per role, named `{role}/reward/{term}`."""
    values: dict[str, list[float]] = defaultdict(list)
    for key, reward in rewards.items():
        role = ReplayKey.of(key).role
        for name, value in {"total": reward.total, **reward.terms, "neutral": float(reward.neutral)}.items():
            values[f"{role}/reward/{name}"].append(value)
    return {name: float(np.mean(v)) for name, v in values.items()}


def weight_metrics(weights: RewardWeights, step: int, prefix: str) -> dict[str, float]:
    """The weights of the terms at a step, named `{prefix}/weight/{term}`, and that of LM by its old name `mu`."""
    named = {f"{prefix}/weight/{term.name}": weight for term, weight in weights.weighted(step)}
    return {**named, f"{prefix}/mu": weights.mu.at(step)}


def pair_metrics(keys: Sequence[str], facts: Sequence[Facts]) -> dict[str, float]:
    """Number, accuracy, tokens, turns, rethink rate and stop reasons of the joint trajectories, named `pair/…`."""
    joint = list({ReplayKey.of(key).session: fact for key, fact in zip(keys, facts, strict=True)}.values())
    names = ["tokens", "turns", *(f"{kind}_{role}" for kind in ("tokens", "format") for role in ROLES)]
    metrics = {f"pair/{name}": _mean(f[name] for f in joint) for name in names}
    metrics["pair/trajectories"] = float(len(joint))
    metrics["pair/accuracy"] = _mean(f["acc"] for f in joint)
    metrics["pair/rethink_rate"] = _mean(f["rethinks"] > 0 for f in joint)
    correct = [f["tokens"] for f in joint if f["acc"] > 0.5]
    if correct:
        metrics["pair/tokens_when_correct"] = _mean(correct)
    for reason in StopReason:
        metrics[f"pair/stop/{reason}"] = _mean(f["stop_reason"] == reason.value for f in joint)
    return metrics


def single_metrics(rewards: Mapping[str, RoleReward], facts: Sequence[Facts]) -> dict[str, float]:
    """Number, accuracy, tokens, format, mean reward and terms of a single model's answers, named `single/…`."""
    names = {"tokens": "tokens", "format": "format", "accuracy": "acc", "answered": "answered"}
    metrics = {f"single/{name}": _mean(fact[key] for fact in facts) for name, key in names.items()}
    metrics["single/trajectories"] = float(len(facts))
    for term in ("total", *next(iter(rewards.values())).terms):
        values = (reward.total if term == "total" else reward.terms[term] for reward in rewards.values())
        metrics[f"single/reward/{term}"] = _mean(values)
    return metrics


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
