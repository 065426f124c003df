"""A row of any data set as a problem: the one reader of training data, benchmarks and chains.

`fields.py` has the names of fields. Multiple choice: the options are shuffled, so that the place of the correct one
tells nothing.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from longshort_reward.ground_truth import ground_truth_text, is_missing, solution_answer
from pydantic_core import to_jsonable_python

from verl_longshort.base.characters import half_character, whole_characters
from verl_longshort.base.files import Record
from verl_longshort.problems.fields import (
    LEVEL,
    PROBLEM,
    SUBJECT,
    VERL,
    Schema,
    content_text,
    field_name,
    is_chat,
    parsed_text,
)
from verl_longshort.problems.fields import RowError as RowError

LETTERS = "ABCDEFGHIJ"
_EXTRA = ("id", "ID", "unique_id", "Record ID", "subject", "level", "Subdomain", "High-level domain", "url")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem with its answer."""

    source: str
    """The benchmark, file or data set that it is from."""
    index: int
    """Number of its row there, from 0."""
    text: str
    """What the model is asked."""
    ground_truth: str
    """The correct answer; with options the letter of the correct one."""
    options: tuple[str, ...] = ()
    """The options of a multiple-choice problem in the order in which they are shown."""
    subject: str | None = None
    level: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Of the row, copied into the records of an evaluation: its id, subject, level ..."""

    @property
    def id(self) -> str:
        """Where it is from: source and number of the row, from 1."""
        return f"{self.source}#{self.index + 1}"


class AnswerError(RowError):
    """A row whose problem can be used and whose answer cannot."""


def read_problem(
    row: Record, schema: Schema, *, source: str, index: int, template: str = "{problem}", option_seed: int = 0
) -> Problem:
    """Row `index` of `source` as a problem.

    Args:
        template: what is asked; `{problem}` stands for the problem, with its options if it has some.
        option_seed: decides, with source and index, the order of the options.

    Raises:
        AnswerError: the answer is missing, or is none.
        RowError: anything else is missing or wrong.
    """
    question = (
        user_message(row.get(schema.problem))
        if schema == VERL
        else content_text(row.get(schema.problem), schema.problem).strip()
    )
    answer = _answer(row, schema)
    options: tuple[str, ...] = ()
    if schema.wrong:
        shuffled = [answer, *(content_text(row.get(name), name).strip() for name in schema.wrong)]
        if len(set(shuffled)) < len(shuffled):
            raise RowError("has the same option twice")
        random.Random(f"{option_seed}/{source}/{index}").shuffle(shuffled)
        options = tuple(shuffled)
        question, answer = _with_options(question, options), LETTERS[options.index(answer)]
    subject, level = field_name(row, SUBJECT), field_name(row, LEVEL)
    digits = None if level is None else re.search(r"\d+", str(row[level]))
    extra = {name: row[name] for name in _EXTRA if row.get(name) is not None}
    if isinstance(row.get("extra_info"), Mapping):
        extra |= row["extra_info"]
    # Times and decimals of a parquet file become text, bytes base64: the records are JSON.
    try:
        extra = to_jsonable_python(extra, bytes_mode="base64", fallback=str)
    except ValueError as error:  # a name with half a character, an object that holds itself
        raise RowError(f"'extra_info' cannot be saved as JSON ({error})") from error
    return Problem(
        source=source,
        index=index,
        text=template.replace("{problem}", question),
        ground_truth=answer,
        options=options,
        subject=None if subject is None else whole_characters(str(row[subject])),
        level=int(digits.group()) if digits else None,
        extra=extra,
    )


def problem_text(row: Record) -> str:
    """The problem of a row, which may have no answer. Raises RowError when there is no text."""
    name, prompt = field_name(row, PROBLEM), row.get(VERL.problem)
    if is_chat(prompt) or (name is None and prompt is not None):
        return user_message(prompt)
    if name is None:
        found = ", ".join(sorted(map(str, row))) or "none"
        raise RowError(f"has no text under {' or '.join(PROBLEM)} (its fields: {found})")
    return content_text(row[name], name).strip()


def user_message(messages: Any) -> str:
    """The content of the last user message of a chat: the problem, in verl's rows; see `content_text`.

    Raises RowError when there is none.
    """
    messages = parsed_text(messages, "prompt")
    try:
        said = [message["content"] for message in messages if message["role"] == "user"]
    except (KeyError, TypeError) as error:
        raise RowError("needs prompt = [{role: user, content}]") from error
    if not said or said[-1] is None or said[-1] == "":
        raise RowError("has no user message in its prompt: the problem goes there")
    return content_text(said[-1], "prompt")


def _answer(row: Record, schema: Schema) -> str:
    try:
        if schema == VERL:
            answer = answer_text(_verl_answer(row), "reward_model.ground_truth")
        elif schema.answer is not None and not is_missing(row.get(schema.answer)):
            answer = answer_text(row[schema.answer], schema.answer)
        else:
            answer = ground_truth_text(_boxed(row, schema))
    except AnswerError:
        raise
    except ValueError as error:
        raise AnswerError(str(error)) from error
    if (half := half_character(answer)) is not None:
        raise AnswerError(f"holds half a character ({half}) in its answer: the text was cut inside it")
    return answer


def _verl_answer(row: Record) -> Any:
    model = parsed_text(row["reward_model"], "reward_model")
    answer = model.get("ground_truth") if isinstance(model, Mapping) else None
    if answer is None:
        raise AnswerError("lacks reward_model.ground_truth: the answer to grade by")
    return answer


def _boxed(row: Record, schema: Schema) -> str:
    if schema.solution is None or not row.get(schema.solution):
        raise AnswerError(f"'{schema.answer or schema.solution}' is missing or empty")
    answer = solution_answer(str(row[schema.solution]))
    if answer is None:
        raise AnswerError(rf"has no answer, and '{schema.solution}' has no \boxed{{}}")
    return answer


def answer_text(value: Any, name: str) -> str:
    """An answer of any type that the known files have, as text: 27, 27.0, "27", LaTeX, `... #### 27`.

    Raises ValueError for anything else; `ground_truth_text` has the rule.
    """
    try:
        return ground_truth_text(value)
    except (TypeError, ValueError) as error:
        if isinstance(value, str) and value.strip("# \n"):
            raise
        raise ValueError(f"'{name}' is {value!r:.80}; it must be a number or a text with one final answer") from error


def _with_options(question: str, options: Sequence[str]) -> str:
    listed = "\n".join(f"{letter}) {text}" for letter, text in zip(LETTERS, options, strict=False))
    return f"{question}\n\n{listed}\n\nThe answer is the letter of the right option."
