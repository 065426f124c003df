"""The paper's metric and what noise does to it, by simulation and on random instances."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_longshort.data.importance import (
    PassCount,
    decisions,
    delta_flips,
    flips,
    hoeffding_epsilon,
    joint_metric,
    length_factors,
    metric_bound,
    more_rollouts,
    penalties,
    running_maximum,
    thought_importances,
    wilson,
)

SHARES = st.floats(0, 1, allow_nan=False)
LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=30)


def counts_of(right: list[int], samples: int) -> list[PassCount]:
    return [PassCount(correct=number, samples=samples) for number in right]


# ---------------------------------------------------------------- facts about the paper


@pytest.mark.parametrize("accuracy", [0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
def test_a_constant_accuracy_still_keeps_thoughts(accuracy: float) -> None:
    """Nothing matters here, and with N = 5 and eleven thoughts the rule keeps 1.4 to 2.0 of them."""
    observed = np.random.default_rng(0).binomial(5, accuracy, size=(20_000, 12)) / 5
    kept = running_maximum(joint_metric(np.full(11, 40), observed)).sum(axis=-1).mean()
    assert 1.4 <= kept <= 2.05


def test_hoeffding_at_five_rollouts() -> None:
    assert hoeffding_epsilon(5, 0.95) == pytest.approx(0.61, abs=0.005)
    assert metric_bound(5, 0.95) == pytest.approx(0.88, abs=0.005)


def test_the_bound_at_five_rollouts_is_above_every_score_of_a_typical_chain() -> None:
    scores = joint_metric(np.full(11, 40), np.linspace(0, 1, 12))
    assert scores.max() < metric_bound(5)


@given(tokens=LENGTHS, data=st.data())
def test_the_last_thought_scores_nothing(tokens: list[int], data: st.DataObject) -> None:
    size = len(tokens) + 1
    accuracies = data.draw(st.lists(SHARES, min_size=size, max_size=size))
    assert joint_metric(tokens, accuracies)[-1] == pytest.approx(-penalties(accuracies)[-1])


@given(tokens=LENGTHS, data=st.data())
def test_metric_is_within_its_bound(tokens: list[int], data: st.DataObject) -> None:
    """|M - M_opt| <= epsilon / ln 2 for the part that is not delta, whatever the error epsilon is."""
    size = len(tokens) + 1
    true = np.array(data.draw(st.lists(SHARES, min_size=size, max_size=size)))
    seen = np.array(data.draw(st.lists(SHARES, min_size=size, max_size=size)))
    smooth_true = joint_metric(tokens, true) + penalties(true)
    smooth_seen = joint_metric(tokens, seen) + penalties(seen)
    bound = np.abs(true - seen)[1:] / math.log(2)
    assert np.all(np.abs(smooth_true - smooth_seen) <= bound + 1e-12)


def test_delta_escapes_the_bound() -> None:
    tokens = [10, 10, 10]
    moved = joint_metric(tokens, [0.5, 0.5, 0.5, 0.5]) - joint_metric(tokens, [0.499, 0.5, 0.5, 0.5])
    assert moved[0] == pytest.approx(-0.25)
    assert 0.001 / math.log(2) < 0.25


def test_hoeffding_holds() -> None:
    for samples in (5, 20):
        seen = np.random.default_rng(0).binomial(samples, 0.5, size=20_000) / samples
        assert np.mean(np.abs(seen - 0.5) <= hoeffding_epsilon(samples, 0.95)) >= 0.95


# ---------------------------------------------------------------- formulas by hand


def test_metric_by_hand() -> None:
    # lengths 10, 30, 60: after the first, 90 of 100 are left and it is 10 long
    assert length_factors([10, 30, 60]) == pytest.approx([0.9 * 0.9, 0.6 * 0.7, 0.0])
    expected = [math.log2(1 + 0.81 * 0.5), math.log2(1 + 0.42 * 0.4) - 0.25, 0.0]
    assert joint_metric([10, 30, 60], [0.2, 0.5, 0.4, 0.8]) == pytest.approx(expected)


def test_running_maximum_by_hand() -> None:
    assert running_maximum([0.1, 0.3, 0.3, 0.2, 0.4]).tolist() == [True, True, False, False, True]


@given(tokens=LENGTHS, data=st.data())
def test_batches_are_rows(tokens: list[int], data: st.DataObject) -> None:
    size = len(tokens) + 1
    rows = [data.draw(st.lists(SHARES, min_size=size, max_size=size)) for _ in range(3)]
    together = running_maximum(joint_metric(tokens, rows))
    apart = [running_maximum(joint_metric(tokens, row)) for row in rows]
    assert np.array_equal(together, apart)


# ---------------------------------------------------------------- how sure


def test_interval_holds_the_rate() -> None:
    low, high = wilson(3, 8)
    assert 0 < low < 3 / 8 < high < 1


def test_a_clear_case_hardly_flips() -> None:
    counts = counts_of([10, 10, 95, 95, 95], 100)
    flip = flips([10, 20, 20, 20], counts)
    assert decisions([10, 20, 20, 20], counts).tolist() == [True, True, False, False]
    assert flip[1] < 0.01
    assert delta_flips(counts)[1] < 0.01


def test_equal_accuracies_leave_delta_a_coin_toss() -> None:
    assert delta_flips(counts_of([50, 50, 50], 100)) == pytest.approx([0.5, 0.5], abs=0.03)


def test_the_simulated_flip_of_delta_is_the_exact_one() -> None:
    """P(Beta(6.5, 2.5) <= Beta(2.5, 6.5)) by quadrature."""
    from scipy import integrate, stats

    low, high = stats.beta(2.5, 6.5), stats.beta(6.5, 2.5)
    exact = integrate.quad(lambda p: low.pdf(p) * high.cdf(p), 0, 1)[0]
    assert delta_flips(counts_of([2, 6], 8))[0] == pytest.approx(exact, abs=0.01)


def test_flips_are_the_same_every_time() -> None:
    counts = counts_of([1, 4, 2, 7], 8)
    assert np.array_equal(flips([5, 9, 7], counts), flips([5, 9, 7], counts))


def test_weights_are_of_one_piece() -> None:
    tokens, counts = [5, 9, 7], counts_of([1, 4, 2, 7], 8)
    weights = thought_importances(tokens, counts)
    assert [weight.m for weight in weights] == pytest.approx(joint_metric(tokens, [c.rate for c in counts]))
    assert [weight.delta for weight in weights] == [0.0, 0.25, 0.0]
    assert all(weight.low <= count.rate <= weight.high for weight, count in zip(weights, counts[1:], strict=True))
    assert weights[0].keep
    assert weights[0].flip == 0


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 thoughts and 2 counts"):
        thought_importances([5, 9], counts_of([1, 2], 8))
    with pytest.raises(ValueError, match="9 correct of 8"):
        PassCount(correct=9, samples=8)
    with pytest.raises(ValueError, match="not all of them 0"):
        length_factors([0, 0])


# ---------------------------------------------------------------- more rollouts


def simulate(true: list[float], tokens: list[int], *, budget: int, confidence: float = 0.9) -> list[PassCount]:
    """Run the adaptive rule to its end on simulated rollouts."""
    rng = np.random.default_rng(0)
    right, samples = np.zeros(len(true), int), np.zeros(len(true), int)
    wanted = dict.fromkeys(range(len(true)), 8)
    while wanted:
        for prefix, count in wanted.items():
            right[prefix] += rng.binomial(count, true[prefix])
            samples[prefix] += count
        counts = [PassCount(correct=int(r), samples=int(n)) for r, n in zip(right, samples, strict=True)]
        wanted = more_rollouts(tokens, counts, confidence=confidence, budget=budget, step=8)
    return counts


def test_a_clear_chain_stops_early() -> None:
    counts = simulate([0.02, 0.05, 0.97, 0.98, 0.98], [10, 20, 40, 40], budget=500)
    assert sum(count.samples for count in counts) <= 120
    assert flips([10, 20, 40, 40], counts).max() <= 0.1


def test_the_budget_ends_what_cannot_be_settled() -> None:
    counts = simulate([0.5] * 6, [10] * 5, budget=200, confidence=0.99)
    assert 48 < sum(count.samples for count in counts) <= 200


def test_settled_thoughts_get_no_more() -> None:
    """The decision between the second and third thought is open; the fourth is far below."""
    counts = counts_of([1, 2, 4, 4, 4, 4], 8)
    more = more_rollouts([10, 10, 10, 400, 10], counts, confidence=0.9, budget=1000, step=8)
    assert {1, 2} <= set(more)
    assert 5 not in more
