"""What data sets call the fields of a row, and what the content of a message says: for training data, benchmarks and
chains alike.

A data set whose names are missing here needs one more name below, nothing else. `docs/evaluation.md` shows the table.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_longshort.base.characters import half_character
from verl_longshort.base.files import Record

PROBLEM = ("problem", "question", "Problem", "Question")
ANSWER = ("answer", "expected_answer", "final_answer", "ground_truth", "Answer", "gold_answer", "Correct Answer")
SOLUTION = ("solution", "Solution", "generated_solution")
WRONG_ANSWERS = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
SUBJECT = ("subject", "type", "problem_type", "problem_source")
LEVEL = ("level",)
_TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of the parts of a content that are text: of chat completions, and of OpenAI's responses."""

_THINKING_PARTS = ("thinking", "reasoning")


class RowError(ValueError):
    """A row that cannot be used; the message says why."""


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


ASSISTANTS = frozenset({"assistant", "gpt", "model", "bot", "chatgpt", "ai"})
"""What a chat calls its model."""


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


def parsed_text(value: object, name: str) -> Any:
    """What a JSON text of the field `name` holds; any other value as it is, also another text.

    Raises RowError for a text that begins like JSON and is none.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowError(f"has a text in {name} that begins like JSON and is none ({error})") from error


def content_text(content: object, name: str = "content") -> str:
    """The text of a message's content, or of a problem; see `joined_parts`.

    Raises:
        RowError: there is no text, half a character in it, or a part that is none, such as an image.
    """
    text = "" if content is None else joined_parts(content, name)
    if not text.strip():
        raise RowError(f"'{name}' is missing or empty")
    if (half := half_character(text)) is not None:
        raise RowError(f"'{name}' holds half a character ({half}): the text was cut inside it")
    return text


def joined_parts(content: object, name: str) -> str:
    """A content as text: a text, or a list of parts, each a text or `{"type": "text", "text": ...}`.

    A line break joins two parts that no white space parts. Raises RowError, naming the field `name`, for anything
    else, such as an image.
    """
    if isinstance(content, str):
        return content
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, Sequence) or isinstance(parts, bytes | bytearray):
        raise RowError(f"'{name}' is not a text")
    text = ""
    for part in parts:
        said = _part_text(part, name)
        glued = text and said and not (text[-1].isspace() or said[0].isspace())
        text += "\n" + said if glued else said
    return text


def thinking_apart(content: object) -> tuple[object, str]:
    """A content without its parts of reasoning (`{"type": "thinking", "thinking": ...}`), and the text of these."""
    if not isinstance(content, Sequence) or isinstance(content, str):
        return content, ""
    thinking = [part for part in content if isinstance(part, Mapping) and part.get("type") in _THINKING_PARTS]
    given = [part.get("thinking") or part.get("reasoning") or part.get("text") or "" for part in thinking]
    texts = [joined_parts(text, "thinking") for text in given]
    return [part for part in content if part not in thinking], joined_parts(texts, "thinking")


def _part_text(part: object, name: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise RowError(f"'{name}' is not a text: it holds a part that is none ({type(part).__name__})")
    kind = part.get("type") or "text"
    if kind not in _TEXT_PARTS:
        raise RowError(f"'{name}' holds a part of the type {kind!r:.40}: only text can be read")
    if not isinstance(part.get("text"), str):
        raise RowError(f"'{name}' holds a part without text")
    return str(part["text"])
