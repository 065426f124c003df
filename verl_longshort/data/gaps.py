"""The gaps between the thoughts that stay long, what the short role says there, and the turns that come of it.

A gap is a run of thoughts that become short. Long speaks first and short last, so the first thought always
stays long, as in the paper (section 4), and behind a kept last thought there is a gap without thoughts, for
the final answer.

* `rewritten` asks a language model for the texts of all gaps of a record at once (paper, section 4).
* `labelled` takes the concise forms that the generator of the miniature world gave with the chain; it
  looks at them only, never at what the generator says matters.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from longshort_reward.answer import last_boxed
from longshort_reward.protocol import ANSWER_CLOSE, ANSWER_OPEN, RETHINK, TAGS, THINK_CLOSE, THINK_OPEN, Role

from verl_longshort.base.rejected import RejectedError
from verl_longshort.data.records import Chunked, TrajectoryTurn
from verl_longshort.llm.client import Message
from verl_longshort.llm.json_reply import read_objects
from verl_longshort.llm.task_client import BadReplyError, TaskClient

# What JSON makes of the backslash in "\\frac", "\\boxed", "\\times" and "\\rho" when it is not doubled.
_CONTROL = re.compile(r"[\f\x08\t\r]")
_TASK = r"""
Below is a worked solution of a problem. Some of its parts are written out. The others are left open and
marked [GAP n: ...], where the words after the number say what kind of work belongs there. Fill every gap, so
that the whole reads as one correct solution.

A filling is short: the calculation or the conclusion itself, without restating, explaining or checking what
is plain. It goes on from what stands before it and leads to what comes next; it does not do what a later part
does. The last filling ends with the final answer in \boxed{}.

Reply with a JSON list, one object per gap, in order, and with every backslash doubled:
[{"gap": 1, "text": "That leaves $\\frac{6}{2} = 3$ boxes."}, {"gap": 2, "text": "The answer is \\boxed{3}."}]
""".strip()

Piece = tuple[Role, str]
"""What one role says, without tags."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The thoughts `first` to `last` (counted from 0, last included); none when `last` is before `first`."""

    first: int
    last: int

    @property
    def indexes(self) -> range:
        """Of its thoughts."""
        return range(self.first, self.last + 1)


def find_gaps(keep: Sequence[bool]) -> list[Gap]:
    """The gaps in order; the last one reaches the end.

    Raises:
        ValueError: the first thought does not stay long.
    """
    if not keep or not keep[0]:
        raise ValueError("keep: the first thought must stay long, because long speaks first; mark it so")
    runs = [(kept, list(run)) for kept, run in groupby(range(len(keep)), lambda k: keep[k])]
    gaps = [Gap(first=run[0], last=run[-1]) for kept, run in runs if not kept]
    return [*gaps, Gap(first=len(keep), last=len(keep) - 1)] if keep[-1] else gaps


def fill_gaps(texts: Sequence[str], keep: Sequence[bool], fillings: Sequence[str], *, separator: str) -> list[Piece]:
    """The pieces in order: kept thoughts as they are, each gap as its filling.

    What then stands beside a piece of the same role is merged with it. An empty filling leaves its gap out.

    Raises:
        ValueError: not one filling per gap.
    """
    filled = dict(zip((gap.first for gap in find_gaps(keep)), fillings, strict=True))
    pieces: list[Piece] = []
    for index, (text, kept) in enumerate(zip(texts, keep, strict=True)):
        if kept:
            pieces.append((Role.LONG, text))
        elif filled.get(index):
            pieces.append((Role.SHORT, filled[index]))
    if filled.get(len(texts)):
        pieces.append((Role.SHORT, filled[len(texts)]))
    return [
        (role, (separator if role is Role.LONG else " ").join(text for _, text in run).strip())
        for role, run in groupby(pieces, key=lambda piece: piece[0])
    ]


def as_turns(pieces: Sequence[Piece]) -> list[TrajectoryTurn]:
    """The turns with their tags; each piece is one.

    Raises:
        ValueError: long does not begin or short does not end.
    """
    roles = [role for role, _ in pieces]
    if not roles or roles[0] is not Role.LONG or roles[-1] is not Role.SHORT:
        raise ValueError(f"pieces: the roles are {', '.join(roles) or 'none'}; long must begin and short end")
    turns = []
    for number, (role, text) in enumerate(pieces, start=1):
        if role is Role.LONG:
            tagged = f"{THINK_OPEN} {text} {THINK_CLOSE}"
        else:
            tagged = f"{ANSWER_OPEN} {text} {ANSWER_CLOSE if number == len(pieces) else RETHINK}"
        turns.append(TrajectoryTurn(role=role, text=tagged))
    return turns


async def rewritten(model: TaskClient, record: Chunked, keep: Sequence[bool], gaps: Sequence[Gap]) -> list[str]:
    """A text for each gap from a model, which sees the problem, the thoughts that stay, and the kind of each gap.

    Raises NoReplyError when no reply was valid.
    """
    messages = rewrite_messages(record, keep, gaps)
    return await model.ask(record.id, messages, lambda reply: read_fillings(reply, len(gaps)))


def labelled(record: Chunked, gaps: Sequence[Gap]) -> list[str]:
    """For each gap the concise forms of the generator's thoughts in it; a gap with none gets "".

    The gap behind a kept last thought gets that thought's concise form. Raises RejectedError as `concise_forms` does.
    """
    concise = concise_forms(record)
    return [" ".join(concise[k] for k in gap.indexes if concise[k]) if gap.indexes else concise[-1] for gap in gaps]


def rewrite_messages(record: Chunked, keep: Sequence[bool], gaps: Sequence[Gap]) -> list[Message]:
    """The chat that asks for the fillings."""
    starting = {gap.first: (number, gap) for number, gap in enumerate(gaps, start=1)}
    thoughts, parts = record.thoughts, []
    for index in range(len(thoughts) + 1):
        if index in starting:
            number, gap = starting[index]
            kinds = ", ".join(thoughts[k].kind for k in gap.indexes) or "final answer"
            parts.append(f"[GAP {number}: {kinds}]")
        elif index < len(thoughts) and keep[index]:
            parts.append(thoughts[index].text.strip())
    solution = "\n\n".join(parts)
    content = f"{_TASK}\n\nPROBLEM\n{record.problem}\n\nSOLUTION\n{solution}"
    return [{"role": "user", "content": content}]


def read_fillings(reply: str, count: int) -> list[str]:
    """The texts of the gaps 1 to `count` in a reply.

    Raises:
        BadReplyError: no reading of the reply is exactly these gaps, each with a text that is whole.
    """
    return read_objects(
        reply, lambda items: _checked(items, count), required={"gap", "text"}, described='"gap" and "text"'
    )


def concise_forms(record: Chunked) -> list[str]:
    """The concise form of each thought, from the record's labels.

    Raises:
        RejectedError: a thought is not made of whole labels, or there are none.
    """
    labels = list(record.labels or ())
    forms = []
    for text in record.texts:
        taken = _taken(labels, text, record.separator)
        forms.append(" ".join(label["concise"] for label in labels[:taken] if label["concise"]))
        del labels[:taken]
    return forms


def _checked(items: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    numbers = [str(item["gap"]).strip() for item in items]
    if numbers != [str(number) for number in range(1, count + 1)]:
        raise BadReplyError(f"the gaps are {', '.join(numbers)[:80]}, not 1 to {count} in order")
    texts = []
    for number, text in enumerate((item["text"] for item in items), start=1):
        if not isinstance(text, str) or not text.strip():
            raise BadReplyError(f"gap {number} has no text")
        if _CONTROL.search(text):
            raise BadReplyError(f"gap {number} has a backslash that is not doubled")
        tags = [tag for tag in TAGS if tag in text]
        if tags:
            raise BadReplyError(f"gap {number} has the tag {tags[0]} in it")
        texts.append(text.strip())
    if last_boxed(texts[-1]) is None:
        raise BadReplyError(r"the last text does not end the solution with \boxed{}")
    return texts


def _taken(labels: Sequence[Any], text: str, separator: str) -> int:
    """How many labels from the front are `text`."""
    for count in range(1, len(labels) + 1):
        if separator.join(label["text"] for label in labels[:count]) == text:
            return count
    raise RejectedError("thoughts do not match the labels", f"no whole labels make {text[:60]!r}")
