"""Properties of the metrics."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_longshort.evaluation.metrics import (
    Interval,
    accuracy,
    accuracy_efficiency_score,
    mean,
    mean_score_interval,
    score_interval,
)

shares = st.floats(0.01, 1.0)
lengths = st.floats(1.0, 1e5)


@given(shares, lengths)
def test_base_scores_zero(share: float, length: float) -> None:
    assert accuracy_efficiency_score(share, length, base_accuracy=share, base_length=length) == 0


@given(shares, shares, lengths, lengths, lengths)
def test_shorter_never_scores_less(share: float, base: float, base_length: float, one: float, two: float) -> None:
    def score(length: float) -> float:
        return accuracy_efficiency_score(share, length, base_accuracy=base, base_length=base_length)

    assert score(min(one, two)) >= score(max(one, two))


@given(shares, shares, shares, lengths, lengths)
def test_more_accurate_never_scores_less(
    one: float, two: float, base: float, length: float, base_length: float
) -> None:
    def score(share: float) -> float:
        return accuracy_efficiency_score(share, length, base_accuracy=base, base_length=base_length)

    assert score(max(one, two)) >= score(min(one, two))


@given(shares, lengths, st.floats(0.001, 0.5))
def test_a_loss_costs_more_than_the_same_gain_earns(base: float, length: float, change: float) -> None:
    def score(share: float) -> float:
        return accuracy_efficiency_score(share, length, base_accuracy=base, base_length=length)

    assert score(base * (1 + change)) == pytest.approx(3 * change)
    assert score(base * (1 - change)) == pytest.approx(-5 * change)


@pytest.mark.parametrize(("base_accuracy", "base_length"), [(0.0, 10.0), (0.5, 0.0)])
def test_a_base_of_zero_is_refused(base_accuracy: float, base_length: float) -> None:
    with pytest.raises(ValueError, match="choose another base"):
        accuracy_efficiency_score(0.5, 5.0, base_accuracy=base_accuracy, base_length=base_length)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=30))
def test_accuracy_lies_in_its_interval(correct: list[list[bool]]) -> None:
    result = accuracy(correct)
    assert 0 <= result.low <= result.high <= 1
    assert result.value == pytest.approx(sum(sum(group) / len(group) for group in correct) / len(correct))
    if all(len(group) == 1 for group in correct):
        assert result.low - 1e-9 <= result.value <= result.high + 1e-9


def test_one_sample_per_problem_gives_wilson() -> None:
    result = accuracy([[True]] * 57 + [[False]] * 143)
    assert (result.value, result.low, result.high) == pytest.approx((0.285, 0.227, 0.351), abs=1e-3)


def test_samples_of_one_problem_are_not_counted_as_independent() -> None:
    repeated = accuracy([[True] * 8] * 30 + [[False] * 8] * 30)
    single = accuracy([[True]] * 30 + [[False]] * 30)
    assert repeated.high - repeated.low == pytest.approx(single.high - single.low, rel=0.1)


def test_all_right_still_has_an_interval() -> None:
    result = accuracy([[True, True]] * 20)
    assert result.value == 1
    assert result.low < 0.9


def test_mean_tokens() -> None:
    result = mean([[10.0, 20.0], [30.0], [40.0]])
    assert result.value == pytest.approx((15 + 30 + 40) / 3)
    assert result.low < result.value < result.high
    assert result == mean([[10.0, 20.0], [30.0], [40.0]])


def test_one_problem_has_no_interval_of_the_mean() -> None:
    result = mean([[3.0, 5.0]])
    assert result.value == 4
    assert math.isnan(result.low)
    assert result.to_json() == {"value": 4.0, "low": None, "high": None}
    assert math.isnan(Interval.from_json(result.to_json()).high)


@pytest.mark.parametrize("values", [[], [[1.0], []]])
def test_empty_groups_are_refused(values: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean(values)


def test_the_score_of_samples() -> None:
    base_correct, correct = [[1, 0], [1, 1], [0, 1], [1, 1]], [[1, 1], [1, 1], [0, 1], [1, 1]]
    base_lengths, lengths = [[90, 110], [100], [80, 120], [100]], [[50], [40, 60], [45], [55]]
    result = score_interval(correct, lengths, base_correct, base_lengths)
    expected = accuracy_efficiency_score(0.875, 50, base_accuracy=0.75, base_length=100)
    assert result.value == pytest.approx(expected)
    assert result.low < result.value < result.high


def test_a_base_that_is_hardly_ever_right_has_no_interval() -> None:
    right, wrong, lengths = [[1]], [[0]], [[5.0]] * 4
    result = score_interval(right * 4, lengths, right + wrong * 3, lengths)
    assert result.value == pytest.approx(9)
    assert math.isnan(result.low)


def test_every_benchmark_counts_the_same() -> None:
    large, small = [[1]] * 30 + [[0]] * 70, [[1]] * 4
    assert accuracy(large, small).value == pytest.approx((0.3 + 1) / 2)
    assert mean([[10.0]] * 50, [[30.0]] * 2).value == 20


@given(st.lists(st.booleans(), min_size=2, max_size=20), st.lists(st.booleans(), min_size=2, max_size=20))
@settings(max_examples=10, deadline=None)
def test_the_mean_of_two_benchmarks_lies_in_its_interval(one: list[bool], two: list[bool]) -> None:
    result = accuracy([[right] for right in one], [[right] for right in two])
    assert 0 <= result.low <= result.value <= result.high <= 1


def test_a_benchmark_drawn_alone_varies_more_than_with_one_that_does_not() -> None:
    uneven, even = [[1], [0]] * 20, [[1]] * 40
    alone, both = mean(uneven), mean(uneven, even)
    assert both.high - both.low == pytest.approx((alone.high - alone.low) / 2, rel=0.15)


def test_the_score_of_several_benchmarks_is_that_of_their_means() -> None:
    own = [([[1], [1], [0]], [[10.0]] * 3), ([[1], [0]], [[30.0]] * 2)]
    base = [([[1], [0], [0]], [[50.0]] * 3), ([[1], [0]], [[70.0]] * 2)]
    expected = accuracy_efficiency_score((2 / 3 + 0.5) / 2, 20, base_accuracy=(1 / 3 + 0.5) / 2, base_length=60)
    assert mean_score_interval(own, base).value == pytest.approx(expected)
