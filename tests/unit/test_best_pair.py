"""Which validated pair is the best, and whether that is within noise."""

import math

import pytest

from verl_longshort.base.checkpoint import Validation
from verl_longshort.evaluation.metrics import score_difference
from verl_longshort.verl_plugin.run.console import say_validation
from verl_longshort.verl_plugin.trainer.best_pair import FILE, Validated, certainty, choose, recall, remember


def validated(step, correct, tokens=100.0, problems=60):
    """`correct` of the problems are solved in each of two samples."""
    names = [f"t/{index}" for index in range(problems)]
    return Validated(
        step=step,
        correct={name: [float(index < correct)] * 2 for index, name in enumerate(names)},
        tokens={name: [tokens + index % 7, tokens - index % 5] for index, name in enumerate(names)},
    )


def point(step, accuracy, tokens=100.0):
    return Validation(step=step, accuracy=accuracy, tokens=tokens)


def test_samples_are_grouped_by_problem_and_failed_ones_count_as_incorrect():
    facts = {"problem": ["t/1", "t/0", "t/1"], "acc": [1.0, 0.0, 0.0], "tokens": [10, 20, 30], "uid": [None] * 3}
    one = Validated.of(4, {"a": 2, "b": 2, "c": 2}, ["b", "a", "b"], facts)
    assert one.correct == {"t/0": [0.0, 0.0], "t/1": [1.0, 0.0], "failed/c": [0.0, 0.0]}
    assert one.tokens == {"t/0": [20.0], "t/1": [10.0, 30.0], "failed/c": []}
    summary = one.summary()
    assert (summary.step, summary.accuracy, summary.tokens) == (4, pytest.approx(1 / 6), 20.0)


def test_every_figure_has_an_interval_over_problems():
    summary = validated(4, 30).summary()
    low, high = summary.accuracy_interval
    assert low < 0.5 < high
    # 60 problems, not 120 independent samples
    assert high - low > 0.2
    assert summary.tokens_interval[0] < summary.tokens < summary.tokens_interval[1]
    assert validated(4, 30).summary(intervals=False).accuracy_interval is None
    assert validated(4, 1, problems=1).summary().tokens_interval is None


def test_the_best_is_judged_against_the_start():
    start = point(0, 0.5)
    shorter, better = point(2, 0.5, 50.0), point(4, 0.6)
    assert choose([start, shorter, better], start) is better  # AES 0.6 and 0.5
    assert choose([start, point(2, 0.4, 50.0)], start) is start
    assert choose([point(4, 0.6), point(2, 0.6)], start).step == 2
    assert choose([], start) is None


@pytest.mark.parametrize("start", [None, point(0, 0.0)])
def test_without_a_start_accuracy_decides_then_tokens(start):
    assert choose([point(2, 0.5, 50.0), point(4, 0.6)], start).step == 4
    assert choose([point(2, 0.6, 60.0), point(4, 0.6, 50.0)], start).step == 4


def test_a_choice_within_noise_says_so(capsys):
    runs = {0: validated(0, 30), 2: validated(2, 40), 4: validated(4, 41)}
    sure = certainty(runs, 4, runs[0].summary())
    assert sure["score"]["low"] < sure["score"]["value"] < sure["score"]["high"]
    assert sure["rival"]["step"] == 2
    assert sure["rival"]["in"] == "score"
    assert sure["rival"]["within_noise"]
    say_validation(runs[4].summary(), runs[4].summary(), sure["rival"]["step"])
    assert "accuracy 68.3% [" in (said := capsys.readouterr().out)
    assert said.strip().endswith("; the best so far, within noise of step 2")

    runs[2] = validated(2, 31, tokens=140.0)
    sure = certainty(runs, 4, runs[0].summary())
    assert not sure["rival"]["within_noise"]
    assert sure["rival"]["lead"]["low"] > 0


def test_without_a_start_the_lead_is_in_accuracy():
    sure = certainty({2: validated(2, 20), 4: validated(4, 50)}, 4, None)
    assert sure["score"] is None
    assert (sure["rival"]["in"], sure["rival"]["within_noise"]) == ("accuracy", False)
    assert certainty({4: validated(4, 50)}, 4, None) == {"score": None, "rival": None}
    # known only from best.json of an earlier version
    assert certainty({4: validated(4, 50)}, 2, None) == {"score": None, "rival": None}


def test_differences_are_paired():
    base, one, two = (validated(0, n).columns([f"t/{i}" for i in range(60)]) for n in (30, 40, 40))
    same = score_difference(one, two, base)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    lead = score_difference(one, base, base)
    assert lead.value == pytest.approx(1.0)
    assert lead.low < 1.0 < lead.high
    assert math.isnan(score_difference(*(([c[0][:1], c[1][:1]]) for c in (one, two, base))).low)


def test_validations_survive_a_kill_and_a_resume(tmp_path):
    for step in (0, 4, 8):
        remember(tmp_path, validated(step, 10 + step))
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 9, "corr')
    remember(tmp_path, validated(4, 50))
    known = recall(tmp_path, 4)
    assert sorted(known) == [0, 4]
    assert known[4] == validated(4, 50)
    assert recall(tmp_path / "nowhere", 4) == {}
