"""From a batch of joint trajectories to one reward per role and trajectory. Nothing here knows verl.

The length term and the credit rules need all trajectories of one problem, so they are computed here, where
groups are complete, from the functions of `longshort_reward` (paper section 5).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from longshort_reward import Outcome, RewardWeights, RoleReward, synergy_reward
from longshort_reward.protocol import ROLES, Role

from verl_longshort.core.environment import StopReason


@dataclass(frozen=True, kw_only=True)
class Row:
    """Where a row of the replay buffer belongs: key `{uid}_{session}_{index of the role}`."""

    key: str
    group: str
    session: str
    role: Role

    @classmethod
    def of(cls, key: str) -> "Row":
        """Read a replay-buffer key."""
        group, session, index = key.rsplit("_", 2)
        return cls(key=key, group=group, session=f"{group}_{session}", role=ROLES[int(index)])


def reward_rows(
    keys: Sequence[str], facts: Sequence[Mapping[str, Any]], weights: RewardWeights, step: int
) -> dict[str, RoleReward]:
    """The synergy reward of every row.

    Args:
        keys: row keys; every session must be there once per role.
        facts: the facts of each row's trajectory, same order.
        weights: η, λ, µ and the rethink weight.
        step: the training step, for weights that change over the run.

    Returns:
        Key → reward with its terms.
    """
    sessions: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for key, fact in zip(keys, facts, strict=True):
        row = Row.of(key)
        sessions[row.group].setdefault(row.session, fact)
    by_session: dict[str, Mapping[Role, RoleReward]] = {}
    for group in sessions.values():
        rewards = synergy_reward([Outcome.from_facts(fact) for fact in group.values()], weights, step)
        by_session.update(zip(group, rewards, strict=True))
    rows = [Row.of(key) for key in keys]
    return {row.key: by_session[row.session][row.role] for row in rows}


def role_metrics(rewards: Mapping[str, RoleReward]) -> dict[str, float]:
    """Mean reward, unweighted terms and share of neutral rows per role, named `{role}/reward/{term}`."""
    values: dict[str, list[float]] = defaultdict(list)
    for key, reward in rewards.items():
        role = Row.of(key).role
        for name, value in {"total": reward.total, **reward.terms, "neutral": float(reward.neutral)}.items():
            values[f"{role}/reward/{name}"].append(value)
    return {name: float(np.mean(v)) for name, v in values.items()}


def weight_metrics(weights: RewardWeights, step: int, prefix: str) -> dict[str, float]:
    """The weights of the terms at a step, named `{prefix}/weight/{term}`, and that of LM by its old name `mu`."""
    named = {f"{prefix}/weight/{term.name}": weight for term, weight in weights.weighted(step)}
    return {**named, f"{prefix}/mu": weights.mu.at(step)}


def pair_metrics(keys: Sequence[str], facts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Accuracy, tokens, turns, rethink rate and stop reasons of the joint trajectories, named `pair/…`."""
    own = {Row.of(key).session: fact for key, fact in zip(keys, facts, strict=True)}
    joint = list(own.values())
    names = ["tokens", "turns", *(f"{kind}_{role}" for kind in ("tokens", "format") for role in ROLES)]
    metrics = {f"pair/{name}": float(np.mean([f[name] for f in joint])) for name in names}
    metrics["pair/accuracy"] = float(np.mean([f["acc"] for f in joint]))
    metrics["pair/rethink_rate"] = float(np.mean([f["rethinks"] > 0 for f in joint]))
    right = [f["tokens"] for f in joint if f["acc"] > 0.5]
    if right:
        metrics["pair/tokens_when_correct"] = float(np.mean(right))
    for reason in StopReason:
        metrics[f"pair/stop/{reason}"] = float(np.mean([f["stop_reason"] == reason.value for f in joint]))
    return metrics
