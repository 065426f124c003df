"""Which thoughts each rule keeps."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.errors import UserError

from verl_longshort.data.records import Weighed
from verl_longshort.data.selection import RULES, select

LN10 = 2.3026


def weighed(
    metric: list[float],
    *,
    flip: list[float] | None = None,
    entropy: list[float] | None = None,
    name: str = "one",
    spread: float = 0.1,
) -> Weighed:
    """A weighed record; `entropy` is of the empty prefix and of each thought's prefix."""
    rng = np.random.default_rng(0)
    flip = flip or [0.0] * len(metric)
    surprises = [(e + spread * rng.standard_normal(8)).tolist() for e in entropy or [0.0] * (len(metric) + 1)]
    start = {"right": 0, "samples": 8, "answers": ["1"] * 8, "forced": {"right": 0, "samples": 8, "surprises": [0.0]}}
    counts = {**start, "p": 0.0, "p_low": 0.0, "p_high": 1.0}
    thoughts = [
        {"text": "t", "kind": "", "tokens": 1, **counts, "m": m, "delta": 0.0, "bound": 0.0, "flip": f, "surprises": s}
        for m, f, s in zip(metric, flip, surprises[1:], strict=True)
    ]
    return Weighed.model_validate(
        {
            **{"id": name, "problem": "p", "ground_truth": 1, "chain": "t" * len(thoughts), "separator": ""},
            "thoughts": thoughts,
            "p_start": {**start, "surprises": surprises[0]},
            **{"tokenizer": "t", "model": "m"},
        }
    )


def test_m_is_the_running_maximum() -> None:
    assert select(weighed([0.1, 0.3, 0.2, 0.4]), rule="m") == [True, True, False, True]


def test_the_penalty_of_m_can_be_another_one() -> None:
    """The third thought does not raise the accuracy: with the paper's δ it has 0.2, and 0.45 without one."""
    record = weighed([0.1, 0.3, 0.2, 0.4])
    third = record.thoughts[2].model_copy(update={"delta": 0.25})
    record = record.model_copy(update={"thoughts": [*record.thoughts[:2], third, record.thoughts[3]]})
    paper = [True, True, False, True]
    assert select(record, rule="m") == select(record, rule="m", delta=0.25) == paper
    assert select(record, rule="m", delta=0) == [True, True, True, False]
    assert select(record, rule="m", delta=0.5) == paper
    with pytest.raises(UserError, match="delta = -1: must be 0 or more"):
        select(record, rule="m", delta=-1)


def test_confident_m_keeps_what_is_settled() -> None:
    record = weighed([0.1, 0.3, 0.2, 0.4], flip=[0.0, 0.3, 0.0, 0.05])
    assert select(record, rule="confident-m") == [True, False, False, True]
    assert select(record, rule="confident-m", confidence=0.6) == [True, True, False, True]


def test_surprise_sees_both_of_two_hard_thoughts() -> None:
    """Restate, hard, re-check, hard, re-check, final: accuracy would jump at the second hard thought only."""
    record = weighed([0.0] * 6, entropy=[2 * LN10, 2 * LN10, LN10, LN10, 0, 0, 0])
    assert select(record, rule="surprise") == [True, True, False, True, False, False]


def test_surprise_does_not_credit_a_thought_that_clears_up_what_an_earlier_one_confused() -> None:
    record = weighed([0.0] * 4, entropy=[LN10, LN10, 3 * LN10, LN10, 0])
    assert select(record, rule="surprise") == [True, False, False, True]


def test_one_derailed_rollout_changes_nothing() -> None:
    record = weighed([0.0] * 3, entropy=[LN10, LN10, 0, 0])
    record.thoughts[1].surprisals[3] = 17.0  # type: ignore[index]
    assert select(record, rule="surprise") == [True, True, False]


def test_surprise_asks_for_a_clear_fall() -> None:
    record = weighed([0.0] * 2, entropy=[1.0, 1.0, 0.5], spread=0.02)
    assert select(record, rule="surprise") == [True, False]
    assert select(record, rule="surprise", nats=0.3) == [True, True]
    noisy = weighed([0.0] * 2, entropy=[2.0, 2.0, 1.2], spread=5.0)
    assert select(noisy, rule="surprise", confidence=0.99) == [True, False]


@given(count=st.integers(1, 12), name=st.text(min_size=1, max_size=5), seed=st.integers(0, 5))
def test_random_keeps_as_many_as_m(count: int, name: str, seed: int) -> None:
    record = weighed(np.random.default_rng(count).random(count).tolist(), name=name)
    chosen = select(record, rule="random", seed=seed)
    assert chosen[0]
    assert sum(chosen) == sum(select(record, rule="m"))
    assert chosen == select(record, rule="random", seed=seed)


def test_random_depends_on_record_and_seed() -> None:
    metric = np.linspace(0, 1, 20).tolist()
    choices = {
        tuple(select(weighed(metric, name=name), rule="random", count=5, seed=seed))
        for name in ("a", "b")
        for seed in (0, 1)
    }
    assert len(choices) == 4
    assert all(sum(choice) == 5 for choice in choices)


def test_random_finds_no_more_thoughts_than_there_are() -> None:
    assert select(weighed([0.1, 0.2]), rule="random", count=9) == [True, True]


def test_prefix_k() -> None:
    assert select(weighed([0.0] * 4), rule="prefix-k", k=2) == [True, True, False, False]


@pytest.mark.parametrize("rule", list(RULES))
def test_the_first_thought_is_always_kept(rule: str) -> None:
    assert select(weighed([-0.25]), rule=rule) == [True]


@pytest.mark.parametrize(
    ("rule", "options", "named"),
    [
        ("best", {}, "rule = best"),
        ("m", {"k": 2}, "the rule m has no such option"),
        ("prefix-k", {"confidence": 0.9}, "it has k"),
        ("prefix-k", {"k": 0}, "k = 0"),
        ("random", {"count": 0}, "count = 0"),
        ("confident-m", {"confidence": 1.5}, "confidence = 1.5"),
        ("surprise", {"nats": -1}, "nats = -1"),
    ],
)
def test_mistakes_are_named(rule: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        select(weighed([0.1, 0.2]), rule=rule, **options)


def test_surprise_needs_surprises() -> None:
    content = weighed([0.1, 0.2]).to_record()
    del content["p_start"]["surprises"]
    record = Weighed.model_validate(content)
    with pytest.raises(UserError, match="has no surprises"):
        select(record, rule="surprise")


def with_answers(answers: list[list[str]], forced: list[float]) -> Weighed:
    """A record whose rollouts surprise alike everywhere; `answers` and the forced entropy are of all prefixes."""
    record = weighed([0.0] * (len(answers) - 1), entropy=[30.0] * len(answers), spread=10.0).to_record()
    rng = np.random.default_rng(1)
    for counts, named, entropy in zip([record["p_start"], *record["thoughts"]], answers, forced, strict=True):
        surprises = (entropy + 0.1 * rng.standard_normal(8)).tolist()
        counts |= {"answers": named, "forced": {"right": 0, "samples": 8, "surprises": surprises}}
    return Weighed.model_validate(record)


def test_forced_answers_decide_where_wording_hides_it() -> None:
    record = with_answers([["1"]] * 4, [LN10, LN10, 0, 0])
    assert select(record, rule="answer") == [True, True, False]
    assert select(record, rule="surprise") == [True, False, False]


def test_answers_that_agree_decide() -> None:
    scattered, two, agreed = list("12345678"), list("11112222"), ["2"] * 8
    record = with_answers([scattered, scattered, two, two, agreed], [0.0] * 5)
    assert select(record, rule="entropy") == [True, True, False, True]
    assert select(record, rule="entropy", nats=2.0) == [True, False, False, False]
    silent = with_answers([scattered, [""] * 8, agreed], [0.0] * 3)
    assert select(silent, rule="entropy") == [True, True]


@pytest.mark.parametrize(("rule", "remedy"), [("answer", "longshort.forced.samples=8"), ("entropy", "no answers")])
def test_records_without_answers_are_refused(rule: str, remedy: str) -> None:
    record = weighed([0.1, 0.2]).to_record()
    for counts in (record["p_start"], *record["thoughts"]):
        del counts["answers"], counts["forced"]
    with pytest.raises(UserError, match=remedy):
        select(Weighed.model_validate(record), rule=rule)
