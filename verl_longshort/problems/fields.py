"""What data sets call the fields of a row: the one table of names, for training data, benchmarks and chains alike.

A data set whose names are missing here needs one more name below, nothing else. `docs/evaluation.md` shows the table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_longshort.base.files import Record

PROBLEM = ("problem", "question", "Problem", "Question")
ANSWER = ("answer", "expected_answer", "final_answer", "ground_truth", "Answer", "gold_answer", "Correct Answer")
SOLUTION = ("solution", "Solution", "generated_solution")
WRONG_ANSWERS = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
SUBJECT = ("subject", "type", "problem_type", "problem_source")
LEVEL = ("level",)


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Names of the fields of a row. An answer that is missing is taken from the end of the solution."""

    problem: str
    answer: str | None = None
    solution: str | None = None
    wrong: tuple[str, ...] = ()
    """Fields of the wrong options; with them, the answer is the text of the correct option."""

    @property
    def fields(self) -> set[str]:
        """Fields that a row must have."""
        answer = self.answer or self.solution
        return {self.problem, *self.wrong, *([answer] if answer else [])}


VERL = Schema(problem="prompt", answer="reward_model")
"""Rows of verl's RL data: the prompt is a list of messages, the answer `reward_model.ground_truth`."""


def field_name(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of `names` under which the row has something."""
    return next((name for name in names if row.get(name) is not None), None)


def is_chat(value: object) -> bool:
    """Whether a prompt is a list of messages, as in verl's rows, and not a text."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def find_schema(row: Record) -> Schema | None:
    """The names that a row uses for its problem and its answer; None when the table has none for one of the two."""
    problem, answer, solution = (field_name(row, names) for names in (PROBLEM, ANSWER, SOLUTION))
    if VERL.fields <= row.keys() and (is_chat(row[VERL.problem]) or problem is None):
        return VERL
    if problem is None or (answer is None and solution is None):
        return None
    wrong = WRONG_ANSWERS if all(row.get(name) is not None for name in WRONG_ANSWERS) else ()
    return Schema(problem=problem, answer=answer, solution=solution, wrong=wrong)
