"""Cuts a chain into thoughts by asking a language model which steps belong together (paper, section 3).

The model sees the problem and the numbered steps and replies with blocks, as JSON. Blocks must begin with the
first step, continue without gap or overlap, and end with the last step; the authors' released code lets blocks
pass that end before it. The model only says where to cut: it never writes a word of the thoughts.
"""

from collections.abc import Sequence
from typing import Any

from verl_longshort.data.records import Chain
from verl_longshort.data.steps import Block, Steps
from verl_longshort.llm.client import Message
from verl_longshort.llm.json_reply import json_values
from verl_longshort.llm.task_client import BadReplyError, TaskClient

_MOST_DIGITS = 6
_TASK = """
Below are a problem and the notes of someone solving it, cut into numbered steps. Group neighbouring steps
into thoughts. A thought is one move of the solver: understanding what is asked, choosing a method, carrying
out one part of the calculation, trying another way, checking a result, correcting a mistake, drawing the
conclusion. A new thought begins where the solver turns to something else. Most notes have between 5 and 20
thoughts.

Reply with a JSON list, one object per thought, in order:
[{{"start": 1, "end": 3, "kind": "understanding"}}, {{"start": 4, "end": 4, "kind": "calculation"}}]
"start" and "end" are the numbers of the thought's first and last step, "kind" names the move in one or two
words. Every step belongs to exactly one thought: the first starts at 1, each next one starts right after the
one before it ends, and the last ends at {count}.

PROBLEM
{problem}

STEPS
{steps}
""".strip()


class LLMChunker:
    """Asks a model for the blocks."""

    def __init__(self, model: TaskClient) -> None:
        self._model = model

    async def __call__(self, record: Chain, steps: Steps) -> list[Block]:
        """See `chunkers.Chunker`. Raises NoReplyError when no reply was valid."""
        messages = chunk_messages(record.problem, steps)
        return await self._model.ask(record.id, messages, lambda reply: read_blocks(reply, len(steps.texts)))


def chunk_messages(problem: str, steps: Steps) -> list[Message]:
    """The chat that asks for the blocks."""
    numbered = "\n\n".join(f"[{number}] {text.strip()}" for number, text in enumerate(steps.texts, start=1))
    task = _TASK.format(problem=problem, steps=numbered, count=len(steps.texts))
    return [{"role": "user", "content": task}]


def read_blocks(reply: str, count: int) -> list[Block]:
    """The blocks in a reply about `count` steps, numbered from 1 or from 0.

    Raises:
        BadReplyError: no reading of the reply is blocks that cover all steps in order, each once.
    """
    reason = 'no JSON list of objects with "start", "end" and "kind"'
    for value in json_values(reply):
        try:
            return _checked(_blocks(value), count)
        except _NotBlocksError:
            continue
        except BadReplyError as error:
            reason = str(error)
    raise BadReplyError(reason)


class _NotBlocksError(Exception):
    """This JSON is something else than blocks."""


def _blocks(value: Any) -> list[Block]:
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise _NotBlocksError
    if not all({"start", "end"} <= item.keys() for item in value):
        raise _NotBlocksError
    return [Block(first=_number(item["start"]), last=_number(item["end"]), kind=_kind(item)) for item in value]


def _number(value: Any) -> int:
    if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) <= _MOST_DIGITS:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**_MOST_DIGITS:
        return value
    raise BadReplyError(f'"start" and "end" must be step numbers, not {str(value)[:20]!r}')


def _kind(item: dict[str, Any]) -> str:
    kind = item.get("kind")
    if not isinstance(kind, str) or not kind.strip():
        raise BadReplyError('every object needs a "kind"')
    return kind.strip().lower()


def _checked(blocks: Sequence[Block], count: int) -> list[Block]:
    base = blocks[0].first
    if base not in (0, 1):
        raise BadReplyError(f"the first thought starts at {base}, not at 1")
    expected = base
    for block in blocks:
        if block.first != expected:
            raise BadReplyError(f"a thought starts at {block.first} where {expected} is next")
        if block.last < block.first:
            raise BadReplyError(f"a thought goes from {block.first} back to {block.last}")
        expected = block.last + 1
    if expected != base + count:
        raise BadReplyError(f"the last thought ends at {expected - 1}, not at {base + count - 1}")
    return [Block(first=b.first - base, last=b.last - base, kind=b.kind) for b in blocks]
