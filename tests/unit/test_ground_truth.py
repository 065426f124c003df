r"""What is a ground truth and what is none: the same rule in the reward, in preparing data and in evaluation."""

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from longshort_reward import match_answer
from longshort_reward.answer import ground_truth_text
from longshort_reward.ground_truth import is_missing, solution_answer
from longshort_reward.reading.boxes import last_boxed

from verl_longshort.problems.fields import VERL, Schema
from verl_longshort.problems.reader import AnswerError, read_problem

TEXTS: list[tuple[Any, str]] = [
    (27, "27"),
    (27.0, "27"),
    (-0.5, "-0.5"),
    (Decimal("2.50"), "2.50"),
    (Fraction(1, 3), "1/3"),
    (10**30, "1" + "0" * 30),
    (" 27 ", "27"),
    (r"so $\boxed{27}$", "27"),
    ("He has 3 * 9 = <<3*9=27>>27.\n#### 27", "27"),
    ("#### 1,200", "1,200"),
    (r"x = \boxed{2} or x = \boxed{3}", "2, 3"),
    (r"First \boxed{0}, then $\boxed{7}$.", "7"),
    (r"$\boxed{7}$, that is \boxed{7}", "7"),
    ("True", "True"),
    ("[1,2]", "[1,2]"),
]
NONE: list[Any] = [
    *(None, True, False, float("nan"), float("inf"), ["4"], {"value": 4}, b"4", 1j, Decimal("NaN"), object()),
    *(
        "",
        "  ",
        "nan",
        "NaN",
        "None",
        "null",
        "N/A",
        "['4']",
        '["4"]',
        "{'value': 4}",
        "b'4'",
        "steps ####",
        "4" * 3000,
    ),
    *(r"\boxed{}", r"\boxed{None}"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_a_ground_truth_as_text(value: Any, text: str) -> None:
    assert ground_truth_text(value) == text
    assert match_answer(rf"\boxed{{{text}}}", value)


@pytest.mark.parametrize("value", NONE, ids=lambda value: repr(value)[:20])
def test_what_is_no_ground_truth(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="ground_truth = ") as caught:
        ground_truth_text(value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("value", NONE, ids=lambda value: repr(value)[:20])
def test_a_row_with_none_is_refused(value: Any) -> None:
    for row, schema in (
        ({"problem": "a", "answer": value}, Schema(problem="problem", answer="answer")),
        ({"prompt": [{"role": "user", "content": "a"}], "reward_model": {"ground_truth": value}}, VERL),
    ):
        with pytest.raises(AnswerError):
            read_problem(row, schema, source="mine", index=0)


@pytest.mark.parametrize("missing", [None, "", " ", float("nan"), "NaN", "None"])
def test_a_missing_answer_is_taken_from_the_solution(missing: Any) -> None:
    assert is_missing(missing)
    schema = Schema(problem="problem", answer="answer", solution="solution")
    row = {"problem": "a", "answer": missing, "solution": r"Then \boxed 4."}
    assert read_problem(row, schema, source="mine", index=0).ground_truth == "4"


def test_the_answer_of_a_solution() -> None:
    assert solution_answer("no box") is None
    assert solution_answer("steps ####") is None
    assert solution_answer(r"\boxed{}") is None
    assert solution_answer(r"\boxed 4") == "4"


BOXES = {
    r"\boxed{2} and \boxed{3}": "2, 3",
    r"$\boxed{2}$, $\boxed{3}$": "2, 3",
    r"x=\boxed{2}\text{ or }x=\boxed{3}": "2, 3",
    r"\boxed{2} then \boxed{3}": "3",
    r"\boxed{2}. \boxed{3}": "3",
    r"\boxed{x = \boxed{6}}": "6",
    r"\boxed{\text{Answer: }\boxed{6}}": "6",
    r"\boxed{4\boxed{6}}": r"4\boxed{6}",
    r"\boxed{6": None,
}


@pytest.mark.parametrize(("text", "answer"), BOXES.items())
def test_several_boxes(text: str, answer: str | None) -> None:
    assert last_boxed(text) == answer


def test_json_lists_in_text_are_no_answers_and_intervals_are() -> None:
    with pytest.raises(ValueError, match="is no answer"):
        ground_truth_text(json.dumps(["1", "2"]))
    assert ground_truth_text(json.dumps([1, 2])) == "[1, 2]"
