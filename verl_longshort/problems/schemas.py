"""What the fields of a benchmark's rows are called, and a row as a problem.

`SCHEMAS` is the one table of what is known; `docs/evaluation.md` shows it. `Reader` turns rows of a schema
into problems. Multiple choice: the options are shuffled, so that the place of the right one tells nothing.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from longshort_reward.answer import ground_truth_text, last_boxed
from longshort_reward.errors import UserError

from verl_longshort.base.files import Record

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem of a benchmark."""

    benchmark: str
    index: int
    """Place in the file, from 0."""
    text: str
    """What the model is asked."""
    ground_truth: str
    """The right answer; with options the letter of the right one."""
    options: tuple[str, ...] = ()
    """The options of a multiple-choice problem in the order in which they are shown."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Of the row, copied into the records: its id, subject, level ..."""


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Names of the fields of a row. An answer that is missing is taken from the end of the solution."""

    problem: str
    answer: str | None = None
    solution: str | None = None
    wrong: tuple[str, ...] = ()
    """Fields of the wrong options; with them, the answer is the text of the right option."""

    @property
    def fields(self) -> set[str]:
        """Fields that a row must have."""
        answer = self.answer or self.solution
        return {self.problem, *self.wrong, *([answer] if answer else [])}


VERL = Schema(problem="prompt", answer="reward_model")
"""Rows of verl's RL data: the prompt is a list of messages, the answer `reward_model.ground_truth`."""

_GPQA_WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
SCHEMAS: tuple[Schema, ...] = (
    VERL,
    Schema(problem="Question", answer="Correct Answer", wrong=_GPQA_WRONG),
    Schema(problem="problem", answer="answer", solution="solution"),
    Schema(problem="problem", answer="expected_answer", solution="generated_solution"),
    Schema(problem="Problem", answer="Answer", solution="Solution"),
    Schema(problem="question", answer="answer", solution="solution"),
    Schema(problem="problem", solution="solution"),
)
"""All that is known; the first one whose fields a row has is used."""

_KEPT = ("id", "ID", "unique_id", "Record ID", "subject", "level", "Subdomain", "High-level domain", "url")


def find_schema(row: Record, *, key: str, where: str) -> Schema:
    """The schema of a row. Raises UserError, with the fields that there are, when it is none of `SCHEMAS`."""
    for schema in SCHEMAS:
        if schema.fields <= row.keys():
            return schema
    found = ", ".join(map(str, row)) or "none"
    remedy = "name them with longshort.fields.problem=<field> and longshort.fields.answer=<field>"
    raise UserError(key, where, f"fields of no known benchmark (it has: {found}); {remedy}")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads the rows of one benchmark."""

    benchmark: str
    schema: Schema
    template: str
    """What is asked; `{problem}` stands for the problem."""
    option_seed: int

    def read(self, index: int, row: Record) -> Problem:
        """Row `index` as a problem. Raises ValueError, with the reason, when it cannot be used."""
        extra = _extra(row)
        if self.schema == VERL:
            question, answer = _verl(row)
        else:
            question, answer = _text(row, self.schema.problem), ground_truth_text(self._answer(row))
        options: tuple[str, ...] = ()
        if self.schema.wrong:
            wrong = [_text(row, name) for name in self.schema.wrong]
            options = self._shuffled(index, [answer, *wrong])
            question, answer = _with_options(question, options), LETTERS[options.index(answer)]
        return Problem(
            benchmark=self.benchmark,
            index=index,
            text=self.template.replace("{problem}", question),
            ground_truth=answer,
            options=options,
            extra=extra,
        )

    def _answer(self, row: Record) -> str:
        if self.schema.answer is not None and row.get(self.schema.answer) not in (None, ""):
            return answer_text(row[self.schema.answer], self.schema.answer)
        if self.schema.solution is None or not row.get(self.schema.solution):
            raise ValueError(f"'{self.schema.answer or self.schema.solution}' is missing or empty")
        boxed = last_boxed(str(row[self.schema.solution]))
        if not boxed:
            raise ValueError(rf"has no answer, and '{self.schema.solution}' has no \boxed{{}}")
        return boxed

    def _shuffled(self, index: int, options: Sequence[str]) -> tuple[str, ...]:
        if len(set(options)) < len(options):
            raise ValueError("has the same option twice")
        shuffled = list(options)
        random.Random(f"{self.option_seed}/{self.benchmark}/{index}").shuffle(shuffled)
        return tuple(shuffled)


def answer_text(value: Any, name: str) -> str:
    """An answer of any type that the known files have, as text: 27, 27.0, "27", LaTeX, `... #### 27`.

    Raises ValueError for anything else.
    """
    if isinstance(value, str):
        # GSM8K: the steps, then the answer behind a mark.
        text = value.rpartition("####")[2].strip()
        if text:
            return text
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return str(int(value)) if value == int(value) else repr(float(value))
    raise ValueError(f"'{name}' is {value!r}; it must be a number or a text")


def _text(row: Record, name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"'{name}' is not a text")
    if not value or not value.strip():
        raise ValueError(f"'{name}' is missing or empty")
    return value.strip()


def _verl(row: Record) -> tuple[str, str]:
    try:
        (message,) = [message for message in row["prompt"] if message["role"] == "user"]
        question, answer = message["content"], row["reward_model"]["ground_truth"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("needs prompt = [{role: user, content}] and reward_model = {ground_truth}") from error
    return question, ground_truth_text(answer_text(answer, "reward_model.ground_truth"))


def _extra(row: Record) -> dict[str, Any]:
    kept = {name: row[name] for name in _KEPT if row.get(name) is not None}
    return {**kept, **(row.get("extra_info") or {})}


def _with_options(question: str, options: Sequence[str]) -> str:
    listed = "\n".join(f"{letter}) {text}" for letter, text in zip(LETTERS, options, strict=False))
    return f"{question}\n\n{listed}\n\nThe answer is the letter of the right option."
