"""Several samples of one problem, the aha rate, and the figures of several benchmarks."""

from collections.abc import Sequence
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.errors import UserError

from verl_longshort.base.files import Record
from verl_longshort.base.journal import RecordFile, read_record_file
from verl_longshort.evaluation.grading import MARKERS, has_aha, majority, pass_at
from verl_longshort.evaluation.metrics import accuracy_efficiency_score
from verl_longshort.evaluation.summary import summarise
from verl_longshort.evaluation.table import as_markdown, details, load_rows, overview
from verl_longshort.report.evaluations import Evaluation

RIGHT = "4"


def votes(answers: Sequence[str | None]) -> list[Record]:
    return [{"answer": answer, "correct": answer == RIGHT} for answer in answers]


def share(answers: Sequence[str | None]) -> float:
    return majority(votes(answers), timeout_s=30)


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_mean_over_all_choices_of_k_samples(right: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(right)))
    chosen = [any(some) for some in combinations(right, k)]
    expected = sum(chosen) / comb(len(right), k)
    assert pass_at(k, samples=len(right), right=sum(right)) == pytest.approx(expected)


@given(st.integers(1, 30), st.data())
def test_pass_at_k_grows_with_k(samples: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, samples))
    values = [pass_at(k, samples=samples, right=right) for k in range(1, samples + 1)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(right / samples)
    assert values[-1] == (right > 0)


@pytest.mark.parametrize("k", [0, 5])
def test_more_samples_than_there_are_cannot_be_asked_for(k: int) -> None:
    with pytest.raises(ValueError, match="1 to the number of samples, 4"):
        pass_at(k, samples=4, right=1)


MAJORITIES: list[tuple[list[str | None], float]] = [
    (["4", "4", "5"], 1),
    (["5", "5", "4"], 0),
    (["5", "6", "4", "4"], 1),
    (["5", "6"], 0),
    (["4", "5"], 1 / 2),
    (["4", "5", "6"], 1 / 3),
    (["4", "4", "5", "5", "6"], 1 / 2),
    (["4", None, None], 1),
    (["4", " ", "5", "5"], 0),
    ([None, None], 0),
    (["4", "1/2", "0.5"], 0),
    (["4", r"\frac{1}{2}", "0.25", r"\sqrt{3}"], 1 / 4),
    (["4", "4", r"\sqrt{12}", r"2\sqrt3"], 1 / 2),
    (["4", "5" * 3000, "5" * 3000], 0),
    (["4", "5" * 3000, "6" * 3000], 1 / 3),
]


@pytest.mark.parametrize(("answers", "expected"), MAJORITIES, ids=range(len(MAJORITIES)))
def test_the_majority(answers: list[str | None], expected: float) -> None:
    assert share(answers) == pytest.approx(expected)


@given(st.lists(st.sampled_from(["4", "5", "6", "0.5", "1/2", None]), min_size=1, max_size=7), st.randoms())
def test_the_majority_does_not_depend_on_the_order(answers: list[str | None], random: Any) -> None:
    shuffled = random.sample(answers, len(answers))
    assert share(shuffled) == share(answers)


def test_a_right_answer_in_prose_has_a_vote() -> None:
    records = [{"answer": None, "correct": True}, {"answer": "5", "correct": False}]
    assert majority(records, timeout_s=5) == 1 / 2


AHA = [
    ("Wait, that cannot be.", True),
    ("So x = 3. Wait. That is odd.", True),
    ("<think>Hmm, 5 is odd</think>", True),
    ("x = 3\nActually, no.", True),
    ("Then (wait) x", False),
    ("So it is. *Wait*, no", True),
    ("That\u2019s not right: 5 > 4", True),
    ("x = 3. Let me double-check this.", True),
    ("We wait for 3 minutes.", False),
    ("Waiting for 3 minutes.", False),
    ("It is actually 3.", False),
    ("", False),
]


@pytest.mark.parametrize(("text", "expected"), AHA)
def test_an_aha_stands_at_the_beginning_of_a_sentence(text: str, expected: bool) -> None:
    assert has_aha(["<answer> so", text]) is expected


@given(st.sampled_from(MARKERS), st.sampled_from(["", "So x = 3. ", "<think>", "First\n"]))
def test_every_marker_counts(marker: str, before: str) -> None:
    assert has_aha([f"{before}{marker.capitalize()}, so"])


def record(benchmark: str, index: int, sample: int, *, correct: bool, tokens: int, text: str = "so") -> Record:
    return {
        "id": f"{benchmark}/{index}/{sample}",
        "benchmark": benchmark,
        "problem": f"{benchmark} {index}",
        "problem_index": index,
        "correct": correct,
        "answer": RIGHT if correct else "5",
        "tokens": {"long": tokens, "short": 10},
        "turns": [{"text": text}, {"text": "so"}],
        "rethinks": 0,
        "seconds": 0.5 + sample,
        "stop_reason": "answered",
    }


def records(*, tokens: int = 90, aime: int = 1) -> list[Record]:
    """Two benchmarks: ten problems of which half are right in both samples, and two with `aime` of four."""
    math = [
        record("math500", index, sample, correct=index < 5, tokens=tokens + 100 * (index >= 5))
        for index in range(10)
        for sample in range(2)
    ]
    return math + [
        record("aime24", index, sample, correct=2 * index + sample < aime, tokens=2 * tokens, text="Wait, no")
        for index in range(2)
        for sample in range(2)
    ]


def test_figures_of_each_benchmark_and_their_mean() -> None:
    summary = summarise("x", records())
    math, aime = summary.benchmarks["math500"], summary.benchmarks["aime24"]
    assert (summary.problems, summary.samples) == (12, 2)
    assert (math.accuracy.value, aime.accuracy.value, summary.accuracy.value) == (0.5, 0.25, 0.375)
    assert (math.tokens.value, aime.tokens.value, summary.tokens.value) == (150, 190, 170)
    assert math.tokens_right is not None
    assert math.tokens_wrong is not None
    assert (math.tokens_right.value, math.tokens_wrong.value) == (100, 200)
    assert (aime.pass_at[2].value, math.pass_at[2].value) == (0.5, 0.5)
    assert aime.majority is not None
    assert aime.majority.value == pytest.approx(1 / 4)
    assert (math.aha_rate, aime.aha_rate, summary.aha_rate) == (0, 1, 0.5)
    assert math.seconds == {"p50": 1.0, "p95": 1.5}
    assert summary.tokens_by_role == {"long": 160, "short": 10}


def test_accuracy_at_a_budget_counts_what_ended_right_within_it() -> None:
    at_budget = summarise("x", records()).benchmarks["math500"].accuracy_at_budget
    assert at_budget == {16: 0, 32: 0, 64: 0, 128: 0.5, 256: 0.5}
    assert at_budget[256] == 0.5


def write(folder: Path, name: str, of_run: list[Record], **header: Any) -> Path:
    base = {
        "name": name,
        "mode": "pair",
        "samples": 2,
        "temperature": 0.6,
        "seed": 0,
        "problems": 12,
        "benchmarks": [{"name": "math500"}, {"name": "aime24"}],
        "date": "2026-01-02",
    }
    with RecordFile(folder / f"{name}.jsonl", {**base, **header}) as file:
        for one in of_run:
            file.append(one)
    return folder / f"{name}.jsonl"


def test_a_table_of_several_benchmarks(tmp_path: Path) -> None:
    base = write(tmp_path, "long-CoT", records(tokens=390, aime=3))
    pair = write(tmp_path, "L4S2", records(), seed=1, date="2026-01-03")
    rows = load_rows([base, pair], "long-CoT")
    shown = overview(rows)
    assert shown.headings == ("", "MATH500", "AIME24", "mean %", "tokens", "AES", "turns", "rethink %")
    assert shown.lines[1][:3] == ("L4S2", "50.0", "25.0")
    means = [(row.summary.accuracy.value, row.summary.tokens.value) for row in rows]
    expected = accuracy_efficiency_score(*means[1], base_accuracy=means[0][0], base_length=means[0][1])
    assert rows[1].score is not None
    assert rows[1].score.value == pytest.approx(expected)
    assert rows[1].score.low <= expected <= rows[1].score.high
    everything = details([row.summary for row in rows])
    assert [line[:2] for line in everything.lines] == [
        (name, title) for name in ("long-CoT", "L4S2") for title in ("MATH500", "AIME24")
    ]
    assert everything.headings[2:7] == ("problems", "k", "avg@k %", "pass@k", "maj@k")
    text = as_markdown(rows, detailed=True)
    assert "12 problems, 2 answers each; temperature 0.6, seed 0, 1; AES relative to long-CoT" in text
    assert "evaluated on 2026-01-02, 2026-01-03" in text


def test_benchmarks_may_have_different_numbers_of_samples() -> None:
    more = [record("aime24", index, sample, correct=sample == 0, tokens=9) for index in (0, 1) for sample in range(5)]
    summary = summarise("x", records()[:20] + more)
    assert (summary.samples, list(summary.pass_at)) == (5, [2, 4, 5])
    assert summary.pass_at[5].value == pytest.approx((0.5 + 1) / 2)


def test_problems_are_compared_without_their_template(tmp_path: Path) -> None:
    plain = records()
    wrapped = [{**one, "problem": f"Solve: {one['problem']} Think."} for one in plain]
    files = [
        write(tmp_path, "pair", plain, template="{problem}"),
        write(tmp_path, "chat", wrapped, template="Solve: {problem} Think."),
    ]
    assert [row.score.value for row in load_rows(files, None) if row.score] == [0.0, 0.0]
    loaded = [(file, *read_record_file(file)) for file in files]
    pair, chat = [Evaluation(file=file, header=header, records=rows) for file, header, rows in loaded]
    assert chat.score(pair) is not None
    with pytest.raises(UserError, match="other: is about other problems than pair"):
        load_rows([files[0], write(tmp_path, "other", wrapped, template="{problem}")], None)


def test_files_of_one_name_are_one_row(tmp_path: Path) -> None:
    everything = records()
    whole = write(tmp_path, "whole", everything)
    math = write(tmp_path / "math", "L4S2", everything[:20], problems=10, benchmarks=[{"name": "math500"}])
    aime = write(tmp_path / "aime", "L4S2", everything[20:], problems=2, benchmarks=[{"name": "aime24"}])
    one, joined = load_rows([whole, aime, math], None)
    assert {**joined.summary.to_json(), "name": "whole"} == one.summary.to_json()
    assert joined.header["benchmarks"] == [{"name": "aime24"}, {"name": "math500"}]
    with pytest.raises(UserError, match="is a second file of L4S2 about the same benchmark"):
        load_rows([whole, aime, math, aime], None)
    with pytest.raises(UserError, match="L4S2: is about other problems than whole"):
        load_rows([whole, aime], None)
