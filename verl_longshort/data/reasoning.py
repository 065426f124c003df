"""Long chains of thought out of what a reasoning model has written, and out of files of such writings.

A chain is what stands before `</think>`; the answer behind it is only looked at for the final answer. Models
whose chat template opens `<think>` do not write that tag themselves.

| fields of a row | taken |
|---|---|
| `chain` | as it is |
| `reasoning_content`, `reasoning`, `thinking` | chain; the answer: `content`, `answer_content`, `response` |
| `generations` (a list, as in OpenR1-Math) | each as a text with tags |
| `response`, `generation`, `generated_solution`, `output`, `r1_solution` | a text with tags |
| `messages`, `conversations` | the assistant's last message: `reasoning_content`, or a text with tags |
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longshort_reward.answer import last_boxed
from longshort_reward.errors import UserError
from longshort_reward.protocol import TAGS, THINK_CLOSE, THINK_OPEN

from verl_longshort.base.rejected import RejectedError
from verl_longshort.problems.fields import field_name

_REASONING = ("reasoning_content", "reasoning", "thinking")
_ANSWERS = ("content", "answer_content", "response")
_TEXTS = ("response", "generation", "generated_solution", "output", "r1_solution")
_CHATS = ("messages", "conversations")
_KNOWN = ("chain", *_REASONING, "generations", *_TEXTS, *_CHATS)


@dataclass(frozen=True, kw_only=True)
class Written:
    """One solution of a reasoning model."""

    reasoning: str
    """What it thought; empty when the thinking did not end."""
    answer: str
    """What it said then; may be empty."""


def written_in_row(row: Mapping[str, Any], *, key: str, where: str) -> list[Written]:
    """The solutions in a row of a file, in its order.

    Raises:
        UserError: the row has none of the fields above.
    """
    found = list(_found(row))
    if not found:
        fields = ", ".join(sorted(map(str, row))) or "none"
        raise UserError(key, where, f"has no chain under {', '.join(_KNOWN)} (its fields: {fields})")
    return found


def read_written(text: str) -> Written:
    """A text with tags, cut at its last `</think>`."""
    before, closed, after = text.rpartition(THINK_CLOSE)
    reasoning = before.strip().removeprefix(THINK_OPEN).strip() if closed else ""
    return Written(reasoning=reasoning, answer=after.strip())


def chain_of(written: Written) -> str:
    r"""The chain, which ends with the final answer.

    Where the thinking itself has no `\boxed{}`, the one of the answer is added as a last step.

    Raises:
        RejectedError: the thinking did not end, or there is a protocol tag in it.
    """
    if not written.reasoning:
        raise RejectedError("the thinking does not end", written.answer[-80:])
    tags = [tag for tag in TAGS if tag in written.reasoning]
    if tags:
        raise RejectedError("a protocol tag in the chain", tags[0])
    box = last_boxed(written.answer)
    if last_boxed(written.reasoning) is not None or box is None:
        return written.reasoning
    return f"{written.reasoning}\n\nThe final answer is \\boxed{{{box}}}."


def _found(row: Mapping[str, Any]) -> Iterator[Written]:
    if row.get("chain"):
        yield Written(reasoning=str(row["chain"]).strip(), answer="")
    elif reasoning := _first(row, _REASONING):
        yield Written(reasoning=reasoning.strip(), answer=_first(row, _ANSWERS) or "")
    elif isinstance(row.get("generations"), Sequence):
        yield from (read_written(str(text)) for text in row["generations"])
    elif text := _first(row, _TEXTS):
        yield read_written(text)
    elif (chat := field_name(row, _CHATS)) is not None:
        yield from _of_chat(row[chat])


def _of_chat(messages: Sequence[Mapping[str, Any]]) -> Iterator[Written]:
    for message in reversed(messages):
        if message.get("role", message.get("from")) in ("assistant", "gpt"):
            content = str(message.get("content") or message.get("value") or "")
            reasoning = _first(message, _REASONING)
            yield (Written(reasoning=reasoning.strip(), answer=content) if reasoning else read_written(content))
            return


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    name = next((name for name in names if row.get(name)), None)
    return None if name is None else str(row[name])
