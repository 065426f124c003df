import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward import Ramp, RewardWeights, format_match, length_match
from longshort_reward.errors import UserError
from longshort_reward.protocol import Role, parse_trajectory

GOOD = r"<think>a</think><answer>b</rethink><think>c < d</think><answer>\boxed{4}</answer>"
MU = {"start": 0.0, "end": 0.2, "begin_step": 10, "end_step": 30}

groups = st.lists(st.tuples(st.integers(0, 5000), st.booleans()), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("text", "whole", "long", "short"),
    [
        (GOOD, 1, 1, 1),
        ("<think>a</think><answer>b</rethink>", 0, 1, 1),
        ("<think>a</think>", 0, 1, 0),
        ("<answer>4</answer>", 0, 0, 1),
        ("<answer>4</answer><think>a</think>", 0, 1, 1),
        ("<think>a</think><answer>4</answer><think>a</think><answer>4</answer>", 0, 1, 1),
        ("<think>a</think>oops<answer>4</answer>", 0, 0, 1),
        ("<think>a</think><answer>4</answer>oops", 0, 1, 0),
        ("<think>a</think><answer></answer>", 0, 1, 0),
        ("no tags", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_format(text, whole, long, short):
    turns = parse_trajectory(text)
    found = format_match(turns), format_match(turns, Role.LONG), format_match(turns, "short")
    assert found == (whole, long, short)


def test_format_refuses_an_unknown_role():
    with pytest.raises(ValueError, match="middle"):
        format_match([], "middle")


def test_length_by_hand():
    right = [True, True, True, False]
    assert length_match([100, 200, 300, 50], right) == [0.5, 0.0, -0.5, 0.0]
    assert length_match([100, 200, 300, 300], [True, True, False, False], gated=False) == [
        0.5,
        0.0,
        -0.5,
        -0.5,
    ]
    assert length_match([100, 300], [False, True], gated=False) == [0.0, -0.5]


def test_lengths_must_fit():
    with pytest.raises(ValueError, match="2 entries"):
        length_match([1, 2], [True])
    with pytest.raises(ValueError, match="negative"):
        length_match([-1], [True])


@given(groups, st.booleans())
def test_length_is_bounded_and_zero_for_equal_lengths(group, gated):
    lengths, correct = [g[0] for g in group], [g[1] for g in group]
    assert all(-0.5 <= value <= 0.5 for value in length_match(lengths, correct, gated=gated))
    assert length_match([lengths[0]] * len(group), correct, gated=gated) == [0.0] * len(group)


@given(groups, st.booleans())
def test_shorter_is_never_worse_among_the_correct(group, gated):
    values = length_match([g[0] for g in group], [g[1] for g in group], gated=gated)
    for (a, va), (b, vb) in itertools.permutations(zip(group, values, strict=True), 2):
        if a[1] and b[1] and a[0] <= b[0]:
            assert va >= vb


@given(groups)
def test_a_wrong_answer_gets_nothing_for_its_length(group):
    lengths, correct = [g[0] for g in group], [g[1] for g in group]
    gated = length_match(lengths, correct)
    assert all(value == 0.0 for value, right in zip(gated, correct, strict=True) if not right)
    others = [length if right else 7 * length + 1 for length, right in group]
    assert length_match(others, correct) == gated
    published = length_match(lengths, correct, gated=False)
    assert all(value <= 0.0 for value, right in zip(published, correct, strict=True) if not right)


def test_ramp_by_hand():
    ramp = Ramp.from_config(MU)
    assert [ramp.at(step) for step in (0, 10, 20, 30, 99)] == [0.0, 0.0, pytest.approx(0.1), 0.2, 0.2]
    jump = Ramp(start=0.0, end=1.0, begin_step=5, end_step=5)
    assert [jump.at(4), jump.at(5)] == [0.0, 1.0]


@given(st.floats(0, 10), st.floats(0, 10), st.integers(0, 50), st.integers(0, 50), st.integers(0, 200))
def test_a_ramp_stays_between_its_ends_and_is_monotonic(start, end, begin, width, step):
    ramp = Ramp(start=start, end=end, begin_step=begin, end_step=begin + width)
    low, high = sorted((start, end))
    assert low - 1e-9 <= ramp.at(step) <= high + 1e-9
    assert (ramp.at(step + 1) - ramp.at(step)) * (end - start) >= -1e-9


def test_weights_from_a_configuration():
    weights = RewardWeights.from_config({"lambda": 0.3, "mu": MU, "rethink": 0.1})
    assert weights == RewardWeights(lambda_=0.3, rethink=0.1, mu=Ramp.from_config(MU))
    assert weights.eta == 1.0


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"lamda": 0.1, "mu": MU}, "longshort.reward.lamda = 0.1: unknown key; did you mean lambda?"),
        (
            {"weight": 1, "mu": MU},
            "longshort.reward.weight = 1: unknown key; known keys: eta, lambda, mu, rethink",
        ),
        ({"eta": 1}, "longshort.reward.mu = None: missing"),
        ({"eta": "much", "mu": MU}, "longshort.reward.eta = much: must be a finite number"),
        ({"eta": -1, "mu": MU}, "longshort.reward.eta = -1: must be 0 or more"),
        ({"eta": True, "mu": MU}, "longshort.reward.eta = True: must be a finite number"),
        ({"rethink": float("nan"), "mu": MU}, "longshort.reward.rethink = nan"),
        ({"mu": 0.2}, "longshort.reward.mu = 0.2: must be a block with the keys start, end"),
        ({"mu": {**MU, "stop": 3}}, "longshort.reward.mu.stop = 3: unknown key"),
        (
            {"mu": {**MU, "end_step": None}},
            "longshort.reward.mu.end_step = None: must be a whole number from 10",
        ),
        ({"mu": {**MU, "end_step": 3}}, "longshort.reward.mu.end_step = 3: must be a whole number from 10"),
        ({"mu": {"start": 0.0}}, "longshort.reward.mu.end = None: missing"),
    ],
)
def test_a_mistake_in_the_weights_is_named(block, message):
    with pytest.raises(UserError) as caught:
        RewardWeights.from_config(block)
    assert str(caught.value).startswith(message)
