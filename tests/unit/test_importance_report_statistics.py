"""The numbers of the importance report, on cases worked out by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.weighed import prose, weighed
from hypothesis import given, settings
from hypothesis import strategies as st
from longshort_reward.errors import UserError
from scipy import stats

from verl_longshort.base.files import Record, write_jsonl
from verl_longshort.data.importance import wilson
from verl_longshort.data.records import Weighed
from verl_longshort.report.importance.chains import WeighedChain, label_kinds, read_chains
from verl_longshort.report.importance.intervals import mean_interval, share_interval
from verl_longshort.report.importance.statistics import (
    bin_width,
    bound,
    compute,
    gaps_to_highest,
    importance_by_position,
    importance_by_share,
    kinds,
    noise,
    plain,
    prefixes_by_count,
    prefixes_by_share,
    survivors,
)


def chains(*records: Record, keep: list[list[bool]] | None = None) -> list[WeighedChain]:
    choice = keep or [[True] + [False] * (len(record["thoughts"]) - 1) for record in records]
    return [
        WeighedChain(record=record, keep=tuple(kept), labels=label_kinds(record))
        for record, kept in zip(map(Weighed.model_validate, records), choice, strict=True)
    ]


def two() -> list[WeighedChain]:
    """Two and four thoughts of 10 tokens; N = 5."""
    return chains(
        weighed([10, 10], [1, 2, 5], name="short", problem="a"),
        weighed([10, 10, 10, 10], [0, 0, 1, 4, 4], name="long", problem="b"),
    )


def test_interval_of_one_value_a_problem_is_students() -> None:
    values = [0.1, 0.4, 0.2, 0.9]
    interval = mean_interval(values, list("abcd"))
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.4, low, high))


def test_values_of_one_problem_count_as_one_draw() -> None:
    """Each value three times, under its problem: nothing new is known."""
    once = mean_interval([0.1, 0.4, 0.9], list("abc"))
    thrice = mean_interval([0.1, 0.4, 0.9] * 3, list("abc") * 3)
    assert thrice.high == pytest.approx(once.high)


def test_one_problem_has_no_bounds() -> None:
    assert math.isnan(mean_interval([0.1, 0.3], ["a", "a"]).low)
    assert math.isnan(share_interval([0.1, 0.3], ["a", "a"]).high)


def test_share_of_single_draws_is_wilsons() -> None:
    """G / (G - 1) in the variance is all that differs: compare where G is large."""
    values = [1.0] * 300 + [0.0] * 700
    interval = share_interval(values, [str(index) for index in range(1000)])
    assert (interval.low, interval.high) == pytest.approx(wilson(300, 1000), abs=2e-5)


def test_share_where_all_agree_is_wilsons_over_problems() -> None:
    interval = share_interval([1.0] * 12, list("abcdef") * 2)
    assert (interval.low, interval.high) == pytest.approx(wilson(6, 6))


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcde")), min_size=1, max_size=40))
def test_share_stays_between_0_and_1_around_its_value(rows: list[tuple[float, str]]) -> None:
    interval = share_interval([row[0] for row in rows], [row[1] for row in rows])
    if not math.isnan(interval.low):
        assert 0 <= interval.low <= interval.value + 1e-9
        assert interval.value - 1e-9 <= interval.high <= 1


def test_m_by_position_says_how_many_thoughts_are_left() -> None:
    bins = importance_by_position(two())
    assert [each.span for each in bins] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert [each.thoughts for each in bins] == [2, 2, 1, 1]
    assert [each.kept for each in bins] == [2, 0, 0, 0]
    # log2(1 + 0.5 * 0.5 * 0.4) and log2(1 + 0.75 * 0.75 * 0) - 0.25
    assert bins[0].m.value == pytest.approx((math.log2(1.1) - 0.25) / 2)
    assert math.isnan(bins[2].m.low)


def test_m_by_share_puts_thoughts_where_their_middle_lies() -> None:
    bins = importance_by_share(two())
    # 1/4, 3/4; 1/8, 3/8, 5/8, 7/8
    assert [(each.span, each.thoughts) for each in bins] == [
        ((0.0, 0.2), 1),
        ((0.2, 0.4), 2),
        ((0.6, 0.8), 2),
        ((0.8, 1.0), 1),
    ]


def test_accuracy_and_length_by_thoughts_kept() -> None:
    bins = prefixes_by_count(two())
    assert [each.span[0] for each in bins] == [0, 1, 2, 3, 4]
    assert [each.chains for each in bins] == [2, 2, 2, 1, 1]
    assert [each.accuracy.value for each in bins] == pytest.approx([0.1, 0.2, 0.6, 0.8, 0.8])
    assert [each.tokens.value for each in bins] == [0, 10, 20, 30, 40]
    assert [each.whole.value for each in bins] == [30, 30, 30, 40, 40]
    assert [each.share.value for each in bins] == pytest.approx([0, 0.375, 0.75, 0.75, 1])


def test_nothing_and_the_whole_chain_have_bins_of_their_own() -> None:
    bins = prefixes_by_share(two())
    assert [(each.span, each.prefixes) for each in bins] == [
        ((0.0, 0.0), 2),
        ((0.2, 0.4), 1),
        ((0.4, 0.6), 2),
        ((0.6, 0.8), 1),
        ((1.0, 1.0), 2),
    ]
    assert bins[-1].accuracy.value == pytest.approx(0.9)
    assert bins[-1].share.value == 1


def test_survivors() -> None:
    assert [(each.position, each.chains, each.kept) for each in survivors(two())] == [
        (1, 2, 2),
        (2, 2, 0),
        (3, 1, 0),
        (4, 1, 0),
    ]


@pytest.mark.parametrize(("longest", "width"), [(1, 1), (25, 1), (26, 2), (51, 5), (420, 20), (9999, 500)])
def test_bin_width(longest: int, width: int) -> None:
    assert bin_width(longest) == width


@settings(max_examples=20)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(0, 3))
def test_no_thought_and_no_prefix_is_lost(lengths: list[int], seed: int) -> None:
    found = chains(*(prose(f"{index}", n, seed=seed) for index, n in enumerate(lengths)))
    for bins in (importance_by_position(found), importance_by_share(found)):
        assert sum(each.thoughts for each in bins) == sum(lengths)
        assert all(each.chains <= len(lengths) for each in bins)
    for places in (prefixes_by_count(found), prefixes_by_share(found)):
        assert sum(each.prefixes for each in places) == sum(lengths) + len(lengths)


def test_noise_counts_decisions_not_first_thoughts() -> None:
    record = weighed([10] * 4, [0, 1, 2, 3, 4])
    for thought, flip, delta_flip in zip(record["thoughts"], [0.9, 0.3, 0.05, 0.2], [0.4, 0.1, 0.1, 0.1], strict=True):
        thought |= {"flip": flip, "delta_flip": delta_flip}
    row = noise(chains(record, keep=[[True, True, False, False]]), 0.1)
    shares = [row.decisions, row.kept, row.compressed, row.delta]
    assert [share and share.value for share in shares] == pytest.approx([2 / 3, 1, 1 / 2, 1 / 4])


def test_bound_against_the_gap_to_the_highest_before() -> None:
    assert gaps_to_highest(np.array([0.1, 0.5, 0.2, 0.6])).tolist() == pytest.approx([0.4, 0.3, 0.1])
    record = weighed([10] * 4, [0, 1, 2, 3, 4])
    for thought, m in zip(record["thoughts"], [0.1, 0.5, 0.2, 0.6], strict=True):
        thought |= {"m": m, "bound": 0.35}
    found = bound(chains(record))
    assert found.mean == pytest.approx(0.35)
    assert found.above_gap.value == pytest.approx(2 / 3)


def test_kinds_by_the_chunker_and_by_the_generator() -> None:
    record = weighed(
        [10, 10, 10],
        [0, 1, 5, 5],
        texts=["a b", "c", "d"],
        kinds=["step", "check", ""],
        labels=[
            {"text": "a", "kind": "restate"},
            {"text": "b", "kind": "hard"},
            {"text": "c", "kind": "hard"},
            {"text": "d", "kind": "final"},
        ],
    )
    (chain,) = chains(record)
    assert chain.labels == ("restate + hard", "hard", "final")
    assert {kind.name for kind in kinds([chain], lambda each: each.labels or ())} == set(chain.labels)
    assert {kind.name for kind in compute([chain], rule="m").kinds} == {"step", "check", "no kind"}


@pytest.mark.parametrize("labels", [None, [], "x", [{"text": "other", "kind": "hard"}]])
def test_labels_that_are_not_the_chain_are_none(labels: Any) -> None:
    assert label_kinds(Weighed.model_validate(weighed([1, 2], [0, 1, 2], labels=labels))) is None


def test_a_chain_of_one_thought_decides_nothing() -> None:
    statistics = compute(chains(weighed([10], [0, 5])), rule="m")
    assert statistics.noise == []
    assert statistics.bound is None
    assert plain(statistics)["accuracy_end"] == {"value": 1.0, "low": None, "high": None}


def test_records_without_delta_flip_say_nothing_about_it() -> None:
    record = weighed([10, 10], [0, 1, 2])
    for thought in record["thoughts"]:
        del thought["delta_flip"]
    assert noise(chains(record), 0.1).delta is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: record["thoughts"][0].update(m=math.nan), "not finite"),
        (lambda record: record["thoughts"][1].update(samples=0), "without rollouts"),
        (lambda record: [thought.update(tokens=0) for thought in record["thoughts"]], "no tokens"),
    ],
)
def test_what_weigh_would_not_write_is_named(tmp_path: Path, change: Any, says: str) -> None:
    record = weighed([10, 10], [0, 1, 2], name="broken")
    change(record)
    write_jsonl(tmp_path / "weighed.jsonl", [record])
    with pytest.raises(UserError, match=rf"record broken: .*{says}"):
        read_chains([tmp_path / "weighed.jsonl"], rule="m")
