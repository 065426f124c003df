"""Rows of verl's RL data as training takes them: a prompt, `reward_model.ground_truth` and `extra_info.index`.

Data sets write the columns in several ways: a prompt's content may be a list of parts, and prompt, `reward_model` and
`extra_info` may be JSON in a text. `plain_row` makes them one.
"""

from collections.abc import Mapping
from typing import Any

from verl_longshort.base.files import Record
from verl_longshort.problems.fields import VERL, parsed_text
from verl_longshort.problems.reader import RowError, read_problem, user_message

COLUMNS = ("data_source", "prompt", "reward_model", "extra_info")
"""What each row must have."""

_MAPPINGS = ("reward_model", "extra_info")
_MEDIA = ("images", "videos", "audios")


def plain_row(row: Mapping[str, Any]) -> Record:
    """The row with its problem as the only message of its prompt, and with mappings where there was JSON.

    Of a chat, the last user message is the problem: system prompts are those of the roles.

    Raises:
        RowError: a column is none of what the module's docstring says.
    """
    made = {**row, "prompt": [{"role": "user", "content": problem_of(row["prompt"])}]}
    for name in _MAPPINGS:
        made[name] = parsed_text(row.get(name), name)
        if not isinstance(made[name], Mapping):
            raise RowError(f"needs a mapping as {name}, and has {made[name]!r:.60}")
    return made


def problem_of(prompt: Any) -> str:
    """The problem in a row's prompt. Raises RowError when there is none."""
    messages = parsed_text(prompt, "prompt")
    if isinstance(messages, str):
        raise RowError("needs prompt = [{role: user, content}], and has a text")
    return user_message(messages)


def check_row(row: Mapping[str, Any]) -> str:
    """The problem of a row that training can use. Raises RowError saying why another one cannot be used."""
    made = plain_row(row)
    problem = read_problem(made, VERL, source="", index=0)
    if made["extra_info"].get("index") is None:
        raise RowError("lacks extra_info.index: number the problems")
    media = [name for name in _MEDIA if row.get(name)]
    if media:
        raise RowError(f"has {media[0]}, and the policies read text only: leave such rows out")
    return problem.text
