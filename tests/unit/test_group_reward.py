import pytest
import torch
from longshort_reward import Ramp, RewardWeights
from longshort_reward.protocol import Role

from verl_longshort.verl_plugin.trainer.group_reward import ReplayKey, pair_metrics, reward_rows, role_metrics

WEIGHTS = RewardWeights(mu=Ramp(start=0.0, end=0.2, begin_step=0, end_step=10), rethink=0.1)


def facts(**changes):
    base = {
        "acc": 1.0,
        "tokens": 100.0,
        "turns": 2.0,
        "rethinks": 0.0,
        "stop_reason": "answered",
        "fault_role": "",
        **{f"{kind}_{role}": 1.0 for kind in ("format", "turns", "tokens") for role in Role},
    }
    return {**base, **changes}


def rewards_of(sessions, step=10):
    keys = [f"u_{s}_{i}" for s in range(len(sessions)) for i in (0, 1)]
    both = [fact for fact in sessions for _ in (0, 1)]
    return reward_rows(keys, both, WEIGHTS, step)


def test_a_key_tells_group_session_and_role():
    row = ReplayKey.of("5f-1a_3_1")
    assert (row.group, row.session, row.role) == ("5f-1a", "5f-1a_3", Role.SHORT)


def test_the_shorter_right_answer_is_worth_more_to_both_roles():
    rewards = rewards_of([facts(tokens=100.0), facts(tokens=200.0)])
    for index in (0, 1):
        assert rewards[f"u_0_{index}"].total == pytest.approx(1.1 + 0.2 * 0.5)
        assert rewards[f"u_1_{index}"].total == pytest.approx(1.1 - 0.2 * 0.5)


def test_length_has_no_weight_before_the_ramp():
    rewards = rewards_of([facts(tokens=100.0), facts(tokens=200.0)], step=0)
    assert rewards["u_0_0"].total == rewards["u_1_0"].total


def test_the_role_that_never_spoke_is_neutral():
    broken = facts(acc=0.0, stop_reason="malformed", fault_role="long", format_long=0.0, turns_short=0.0)
    rewards = rewards_of([facts(), facts(acc=0.0), broken])
    assert rewards["u_2_1"].neutral
    assert rewards["u_2_1"].total == pytest.approx((rewards["u_0_1"].total + rewards["u_1_1"].total) / 2)
    assert not rewards["u_2_0"].neutral
    assert rewards["u_2_0"].total < rewards["u_1_0"].total


def test_groups_do_not_mix():
    keys = ["a_0_0", "a_0_1", "b_0_0", "b_0_1"]
    sessions = [facts(tokens=10.0)] * 2 + [facts(tokens=900.0)] * 2
    rewards = reward_rows(keys, sessions, WEIGHTS, 10)
    assert {r.terms["lm"] for r in rewards.values()} == {0.0}


def test_metrics_are_means_over_trajectories():
    sessions = [facts(), facts(acc=0.0, tokens=300.0, rethinks=2.0, stop_reason="max_turns")]
    metrics = pair_metrics(["u_0_0", "u_1_0"], sessions)
    assert metrics["pair/accuracy"] == 0.5
    assert metrics["pair/tokens"] == 200.0
    assert metrics["pair/tokens_when_correct"] == 100.0
    assert metrics["pair/rethink_rate"] == 0.5
    assert metrics["pair/stop/max_turns"] == 0.5
    means = role_metrics(rewards_of(sessions))
    assert means["long/reward/em"] == 0.5
    assert means["short/reward/neutral"] == 0.0


@pytest.mark.parametrize(("mask", "at"), [([0, 1, 1, 0], 2), ([1], 0), ([0, 0], 1)])
def test_the_reward_lies_on_the_last_own_token(mask, at):
    pytest.importorskip("transfer_queue")
    from verl_longshort.verl_plugin.trainer.rows import place_reward

    scores = place_reward(torch.tensor(mask), 0.7)
    assert scores.shape == (len(mask),)
    assert scores.nonzero().flatten().tolist() == [at]
