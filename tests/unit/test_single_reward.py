"""A single model's reward is the pair's, without the terms that need a partner."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward import Ramp, RewardWeights, length_match

from verl_longshort.verl_plugin.trainer.group_reward import reward_rows, single_metrics

STEPS = 10


def weights(mu: float) -> RewardWeights:
    return RewardWeights(mu=Ramp(start=0.0, end=mu, begin_step=0, end_step=STEPS))


def facts(acc: float = 1.0, tokens: float = 100.0, form: float = 1.0) -> dict[str, Any]:
    return {"acc": acc, "tokens": tokens, "format": form, "answered": 1.0, "stop_reason": "answered"}


answers = st.lists(
    st.builds(facts, st.sampled_from([0.0, 1.0]), st.integers(1, 320), st.sampled_from([0.0, 1.0])),
    min_size=1,
    max_size=8,
)


@given(st.lists(answers, min_size=1, max_size=4), st.floats(0, 1), st.integers(0, 2 * STEPS))
def test_it_is_the_sum_of_its_terms_within_each_group(groups: list[list[dict[str, Any]]], mu: float, step: int) -> None:
    keys = [f"u-{g}_{s}_0" for g, group in enumerate(groups) for s in range(len(group))]
    every = [fact for group in groups for fact in group]
    rewards = reward_rows(keys, every, weights(mu), step)
    assert list(rewards) == keys
    for g, group in enumerate(groups):
        lengths = length_match([int(f["tokens"]) for f in group], [f["acc"] > 0.5 for f in group])
        for s, fact in enumerate(group):
            expected = fact["acc"] + 0.1 * fact["format"] + mu * min(step / STEPS, 1.0) * lengths[s]
            assert rewards[f"u-{g}_{s}_0"].total == pytest.approx(expected)


@given(answers)
def test_without_mu_length_does_not_matter(group: list[dict[str, Any]]) -> None:
    keys = [f"u_{s}_0" for s in range(len(group))]
    same = [{**fact, "tokens": 7} for fact in group]
    long, short = (reward_rows(keys, one, weights(0.0), STEPS) for one in (group, same))
    assert [r.total for r in long.values()] == [r.total for r in short.values()]


@given(answers)
def test_every_answer_of_a_single_model_teaches(group: list[dict[str, Any]]) -> None:
    rewards = reward_rows([f"u_{s}_0" for s in range(len(group))], group, weights(0.2), STEPS)
    assert not any(reward.neutral for reward in rewards.values())


def test_metrics_are_means():
    both = [facts(acc=1.0, tokens=10), facts(acc=0.0, tokens=30, form=0.0)]
    metrics = single_metrics(reward_rows(["u_0_0", "u_1_0"], both, weights(0.2), STEPS), both)
    assert metrics["single/accuracy"] == metrics["single/reward/em"] == 0.5
    assert (metrics["single/tokens"], metrics["single/format"]) == (20.0, 0.5)
    assert metrics["single/reward/total"] == pytest.approx(0.55)
