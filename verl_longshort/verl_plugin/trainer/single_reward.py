"""The reward of a single model: that of a pair with one role, `eta EM + lambda FM + mu LM`. Knows no verl.

The functions are those of the pair (`longshort_reward`): a control differs in nothing but being alone.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from longshort_reward import Outcome, RewardWeights, RoleReward, synergy_reward
from longshort_reward.outcome import SINGLE_ROLE


def group_of(key: str) -> str:
    """The problem of a row of the replay buffer, whose key is `{uid}_{session}_{index}`."""
    return key.rsplit("_", 2)[0]


def reward_answers(
    keys: Sequence[str], facts: Sequence[Mapping[str, Any]], weights: RewardWeights, step: int
) -> dict[str, RoleReward]:
    """Key -> reward of every answer; `facts`, one per key, are what the agent loop recorded.

    All answers to a problem must be there: LM compares them.
    """
    groups: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for key, fact in zip(keys, facts, strict=True):
        groups[group_of(key)][key] = fact
    rewards: dict[str, RoleReward] = {}
    for group in groups.values():
        rewarded = synergy_reward([Outcome.from_facts(fact) for fact in group.values()], weights, step)
        rewards.update(zip(group, (roles[SINGLE_ROLE] for roles in rewarded), strict=True))
    return rewards


def answer_metrics(rewards: Mapping[str, RoleReward], facts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over a step, named `single/…`; the terms are unweighted."""
    metrics = {f"single/{name}": float(np.mean([f[name] for f in facts])) for name in ("tokens", "format")}
    metrics["single/accuracy"] = float(np.mean([fact["acc"] for fact in facts]))
    metrics["single/answered"] = float(np.mean([fact["answered"] for fact in facts]))
    columns = {"total": [reward.total for reward in rewards.values()]}
    for term in next(iter(rewards.values())).terms:
        columns[term] = [reward.terms[term] for reward in rewards.values()]
    metrics.update({f"single/reward/{name}": float(np.mean(values)) for name, values in columns.items()})
    return metrics
