"""Multiple choice: shuffled options, what is asked, and what counts as the right answer."""

from collections import Counter
from pathlib import Path

import pytest
from helpers.benchmark_files import gpqa_row, write_rows
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from verl_longshort.evaluation.grading import grade
from verl_longshort.problems.benchmarks import BenchmarkFile, load_benchmark
from verl_longshort.problems.fields import WRONG_ANSWERS, Schema, find_schema
from verl_longshort.problems.reader import Problem, read_problem

OPTIONS = ("6 eV", "10^-3 eV", "none, it decays", "7 eV")


def read(row: dict[str, str], *, index: int = 0, seed: int = 0) -> Problem:
    schema = find_schema(row)
    assert schema is not None
    return read_problem(row, schema, source="gpqa", index=index, option_seed=seed)


def test_the_fields_of_gpqa_are_found() -> None:
    assert find_schema(gpqa_row(1)) == Schema(problem="Question", answer="Correct Answer", wrong=WRONG_ANSWERS)


def test_all_options_are_listed_and_the_letter_is_the_right_one() -> None:
    problem = read(gpqa_row(3))
    assert sorted(problem.options) == sorted(["6 eV", "7 eV", "none, it decays", "10^-3 eV"])
    lines = problem.text.splitlines()
    assert lines[:3] == ["Which level lies 3 steps up,", "if a step is 2 eV?", ""]
    assert [line[:3] for line in lines[3:7]] == ["A) ", "B) ", "C) ", "D) "]
    assert lines[7:] == ["", "The answer is the letter of the right option."]
    assert f"{problem.ground_truth}) 6 eV" in lines
    assert problem.extra == {
        "Record ID": "rec3",
        "Subdomain": "Quantum Mechanics",
        "High-level domain": "Physics",
    }


@given(st.integers(0, 10**6), st.integers(0, 197))
def test_the_order_depends_on_seed_and_row_alone(seed: int, index: int) -> None:
    first, second = (read(gpqa_row(3), index=index, seed=seed) for _ in range(2))
    assert first == second
    assert first.options["ABCD".index(first.ground_truth)] == "6 eV"


def test_every_letter_is_right_equally_often_over_seeds() -> None:
    letters = Counter(read(gpqa_row(3), seed=seed).ground_truth for seed in range(4000))
    assert stats.chisquare([letters[letter] for letter in "ABCD"]).pvalue > 0.001


def test_every_letter_is_right_equally_often_over_problems() -> None:
    letters = Counter(read(gpqa_row(3), index=index).ground_truth for index in range(4000))
    assert stats.chisquare([letters[letter] for letter in "ABCD"]).pvalue > 0.001


def test_orders_of_two_problems_are_independent() -> None:
    pairs = Counter(
        tuple(read(gpqa_row(3), index=index, seed=seed).ground_truth for index in (0, 1)) for seed in range(4000)
    )
    assert len(pairs) == 16
    assert stats.chisquare(list(pairs.values())).pvalue > 0.001


def test_the_same_option_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="the same option twice"):
        read(gpqa_row(3, **{"Incorrect Answer 1": "6 eV "}))


def test_a_csv_file_with_line_breaks_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gpqa.csv"
    write_rows(path, [gpqa_row(1), gpqa_row(2)])
    file = BenchmarkFile(name="gpqa", key="data", path=path)
    benchmark = load_benchmark(file, template="{problem}", option_seed=0, limit=None)
    assert [problem.text.splitlines()[1] for problem in benchmark.problems] == ["if a step is 2 eV?"] * 2


def problem(*options: str, right: str) -> Problem:
    return Problem(source="gpqa", index=0, text="?", ground_truth=right, options=options)


GRADES = [
    (r"\boxed{A}", "A"),
    (r"\boxed{(a)}", "A"),
    (r"\boxed{\text{A}}", "A"),
    (r"\boxed{A) 6 eV}", "A"),
    (r"\boxed{A. 6 eV}", "A"),
    (r"\boxed{6 eV}", "A"),
    (r"\boxed{6\text{ eV}}", "A"),
    (r"\boxed{\mathbf{6}\ \mathrm{eV}}", "A"),
    (r"\boxed{6.0 eV}", "A"),
    (r"\boxed{\text{None, it decays}}", "C"),
    (r"\boxed{10^{-3} eV}", "B"),
    (r"\boxed{D}", "D"),
    (r"\boxed{7 eV}", "D"),
    (r"\boxed{8 eV}", "8 eV"),
    (r"\boxed{E}", "E"),
    (r"\boxed{}", ""),
    (r"<think>A?</think><answer>so \boxed{A}</answer>", "A"),
    (r"<think>\boxed{A}</think><answer>hm</rethink>", None),
]


@pytest.mark.parametrize(("text", "answer"), GRADES)
@pytest.mark.parametrize("right", "ABCD")
def test_a_letter_or_the_text_of_an_option_is_an_answer(text: str, answer: str | None, right: str) -> None:
    result = grade(problem(*OPTIONS, right=right), text, timeout_s=5)
    assert (result.answer, result.correct) == (answer, answer == right)


def test_a_letter_is_read_as_a_letter_even_if_an_option_is_one() -> None:
    assert grade(problem("C", "D", "A", "B", right="A"), r"\boxed{A}", timeout_s=5).correct


def test_an_answer_that_equals_two_options_is_neither() -> None:
    two = problem("10 cm", "10 m", "1", "2", right="A")
    assert not grade(two, r"\boxed{10}", timeout_s=5).correct
    assert grade(two, r"\boxed{10\text{ cm}}", timeout_s=5).correct
    assert not grade(two, r"\boxed{10 m}", timeout_s=5).correct


@pytest.mark.parametrize(("text", "correct"), [("The answer is (B).", True), ("The answer is (C).", False)])
def test_prose_without_a_box_may_name_the_letter(text: str, correct: bool) -> None:
    assert grade(problem(*OPTIONS, right="B"), text, timeout_s=5).correct is correct


@given(st.permutations(OPTIONS), st.sampled_from("ABCD"))
def test_the_text_of_each_option_is_that_option(options: list[str], right: str) -> None:
    for letter, option in zip("ABCD", options, strict=True):
        result = grade(problem(*options, right=right), rf"\boxed{{{option}}}", timeout_s=5)
        assert (result.answer, result.correct) == (letter, letter == right)
