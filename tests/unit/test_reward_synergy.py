import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward import Outcome, Ramp, RewardWeights, direct_accuracy, synergy_reward
from longshort_reward.protocol import ROLES, Role

FLAT_MU = Ramp(start=0.2, end=0.2, begin_step=0, end_step=0)
WEIGHTS = RewardWeights(mu=FLAT_MU, rethink=0.1)


def outcome(correct=True, tokens=100, rethinks=0, fault_role=None, long_ok=True, short_ok=True):
    return Outcome(
        correct=correct,
        format_ok={"long": long_ok, "short": short_ok},
        tokens=tokens,
        rethinks=rethinks,
        fault_role=fault_role,
        stop_reason="malformed" if fault_role else "answered",
    )


@st.composite
def outcomes(draw):
    fault = draw(st.sampled_from([None, None, "long", "short"]))
    return outcome(
        correct=fault is None and draw(st.booleans()),
        tokens=draw(st.integers(1, 3000)),
        rethinks=draw(st.integers(0, 3)),
        fault_role=fault,
        long_ok=fault != "long" and draw(st.booleans()),
        short_ok=fault != "short" and draw(st.booleans()),
    )


groups = st.lists(outcomes(), min_size=1, max_size=10)


def totals(group, role, weights=WEIGHTS, step=0):
    return [rewards[role].total for rewards in synergy_reward(group, weights, step)]


def test_the_terms_by_hand():
    group = [
        outcome(tokens=100),
        outcome(tokens=300, short_ok=False),
        outcome(tokens=200, rethinks=1),
        outcome(correct=False, tokens=50),
    ]
    rewards = synergy_reward(group, WEIGHTS, 0)
    assert totals(group, Role.LONG) == pytest.approx([1 + 0.1 + 0.1, 1 + 0.1 - 0.1, 1 + 0.1, 0.1])
    # two of the three that answered at once were right, so asking is worth a third of the credit
    assert totals(group, Role.SHORT) == pytest.approx([1.2, 1 - 0.1, 1.1 + 0.1 / 3, 0.1])
    asked = rewards[2][Role.SHORT]
    assert asked.terms == {"em": 1.0, "fm": 1.0, "lm": 0.0, "rethink": pytest.approx(1 / 3)}
    assert rewards[2]["short"] is asked


def test_a_role_pays_for_its_own_fault_only():
    group = [outcome(tokens=100), outcome(tokens=100, correct=False, fault_role="short", short_ok=False)]
    long_total, short_total = totals(group, Role.LONG), totals(group, Role.SHORT)
    assert long_total == pytest.approx([1.1, 1.1])
    assert short_total == pytest.approx([1.1, 0.0])
    assert [r[Role.LONG].neutral for r in synergy_reward(group, WEIGHTS, 0)] == [False, True]


def test_all_neutral_is_zero():
    group = [outcome(correct=False, fault_role="long", long_ok=False)] * 3
    assert totals(group, Role.SHORT) == [0.0] * 3
    assert totals(group, Role.LONG) == [0.0] * 3


def test_a_role_that_had_no_turn_is_neutral():
    silent = replace(outcome(correct=False), format_ok={"long": True})
    group = [outcome(), silent, outcome(correct=False)]
    assert totals(group, Role.SHORT) == pytest.approx([1.1, 0.6, 0.1])
    assert totals(group, Role.LONG) == pytest.approx([1.1, 0.1, 0.1])


def test_a_limit_of_the_trajectory_is_nobodys_fault():
    cut = replace(outcome(correct=False), stop_reason="max_turns")
    assert not any(r.neutral for rewards in synergy_reward([cut], WEIGHTS, 0) for r in rewards.values())


def test_when_all_ask_the_group_is_its_own_baseline():
    group = [outcome(rethinks=1), outcome(rethinks=2, correct=False)]
    assert direct_accuracy(group) == 0.5
    assert synergy_reward(group, WEIGHTS, 0)[0][Role.SHORT].terms["rethink"] == 0.5


def test_an_empty_group_has_no_rewards():
    assert synergy_reward([], WEIGHTS, 0) == []


def test_mu_follows_the_step():
    weights = RewardWeights(mu=Ramp(start=0.0, end=0.4, begin_step=0, end_step=10))
    group = [outcome(tokens=100), outcome(tokens=200)]
    assert totals(group, Role.LONG, weights, 0) == pytest.approx([1.1, 1.1])
    assert totals(group, Role.LONG, weights, 5) == pytest.approx([1.2, 1.0])
    assert totals(group, Role.LONG, weights, 10) == pytest.approx([1.3, 0.9])


@given(groups, st.randoms(use_true_random=False))
def test_the_order_of_a_group_does_not_matter(group, rng: random.Random):
    order = list(range(len(group)))
    rng.shuffle(order)
    for role in ROLES:
        given_order = totals(group, role)
        assert totals([group[i] for i in order], role) == pytest.approx([given_order[i] for i in order])


@given(groups, st.data())
def test_the_partners_format_changes_nothing(group, data):
    role = data.draw(st.sampled_from(ROLES))
    index = data.draw(st.integers(0, len(group) - 1))
    flags = dict(group[index].format_ok)
    flags[role.partner.value] = not flags[role.partner.value]
    changed = [*group[:index], replace(group[index], format_ok=flags), *group[index + 1 :]]
    assert totals(changed, role) == totals(group, role)


@given(groups)
def test_neutral_rows_have_no_advantage_and_move_no_baseline(group):
    rewards = synergy_reward(group, WEIGHTS, 0)
    for role in ROLES:
        column = [r[role] for r in rewards]
        mean = sum(r.total for r in column) / len(column)
        active = [r.total for r in column if not r.neutral]
        assert all(r.total - mean == pytest.approx(0.0) for r in column if r.neutral)
        if active:
            assert mean == pytest.approx(sum(active) / len(active))


@given(groups, st.integers(0, 3000))
def test_without_mu_length_does_not_matter(group, shift):
    weights = RewardWeights(mu=Ramp(start=0.0, end=0.0, begin_step=0, end_step=0), rethink=0.1)
    longer = [replace(o, tokens=o.tokens + shift * i) for i, o in enumerate(group)]
    for role in ROLES:
        assert totals(longer, role, weights) == totals(group, role, weights)


@given(groups)
def test_the_total_is_the_weighted_sum_of_the_terms(group):
    for rewards in synergy_reward(group, WEIGHTS, 0):
        assert rewards[Role.LONG].terms["rethink"] == 0.0
        for reward in rewards.values():
            if not reward.neutral:
                em, fm, lm, rethink = (reward.terms[name] for name in ("em", "fm", "lm", "rethink"))
                assert reward.total == em + 0.1 * fm + 0.2 * lm + 0.1 * rethink


@given(groups)
def test_a_wrong_answer_earns_its_format_at_most(group):
    for o, rewards in zip(group, synergy_reward(group, WEIGHTS, 0), strict=True):
        for role in ROLES:
            if not o.correct and not rewards[role].neutral:
                assert rewards[role].total == 0.1 * o.format_ok[role]
