"""The protocol of the two roles: tags, system prompts, and a parser that says what is wrong with a turn.

Two models write one text together (paper, section 5). The long-thought role writes `<think> ... </think>`.
The short-thought role writes `<answer> ... </rethink>` to ask for another thought, or `<answer> ...
</answer>` to end with the final answer. The tags are plain text, and each model writes its own opening tag.

Only the five exact tags count. Every other `<` or `>` is text: `a < b`, `<thin`, `</answer`, `<Think>`,
`<rethink>`, and also `<<think>`, because an opening tag that follows a `<` directly is no tag. A closing tag
counts wherever its characters stand, since engines stop at it as a plain string: `1 <</think>` ends the turn.

Outcomes of `parse_turn`, shown for the long role (`<answer>`, `</answer>` and `</rethink>` are the
partner's). The first row that fits is the outcome; white space around the text, the body and the tags never
matters.

| text                                                            | fault         |
|-----------------------------------------------------------------|---------------|
| blank, or no text at all                                        | EMPTY         |
| a tag of the partner anywhere                                   | FOREIGN_TAG   |
| no opening tag, with or without a closing one: `a</think>`      | NO_OPENING    |
| something before the opening tag: `a<think>b</think>`           | LEADING_TEXT  |
| no closing tag (truncated, or EOS too early): `<think>a`        | NO_CLOSING    |
| an opening or closing tag twice, nested or in a row             | REPEATED_TAG  |
| something after the closing tag: `<think>a</think>b`            | TRAILING_TEXT |
| nothing between the tags: `<think> </think>`                    | EMPTY         |
| `<think>a < b</think>`                                          | none          |

For the short role `</answer>` and `</rethink>` are both closing tags, so one after the other is REPEATED_TAG.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from longshort_reward.compat import StrEnum


class Role(StrEnum):
    """Who writes a turn. The order of `ROLES` is the part index of the rows of a trajectory."""

    LONG = "long"
    SHORT = "short"

    @property
    def partner(self) -> "Role":
        """The other role."""
        return Role.SHORT if self is Role.LONG else Role.LONG


class Closing(StrEnum):
    """The tag that ends a turn."""

    THINK = "</think>"
    ANSWER = "</answer>"
    RETHINK = "</rethink>"


class Fault(StrEnum):
    """What is wrong with a turn; the table in the module's docstring defines each."""

    NO_OPENING = "no_opening"
    LEADING_TEXT = "leading_text"
    NO_CLOSING = "no_closing"
    FOREIGN_TAG = "foreign_tag"
    REPEATED_TAG = "repeated_tag"
    TRAILING_TEXT = "trailing_text"
    EMPTY = "empty"


ROLES: tuple[Role, Role] = (Role.LONG, Role.SHORT)

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
ANSWER_OPEN = "<answer>"
ANSWER_CLOSE = "</answer>"
RETHINK = "</rethink>"
TAGS: tuple[str, ...] = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE, RETHINK)

OPENINGS: Mapping[Role, str] = MappingProxyType({Role.LONG: THINK_OPEN, Role.SHORT: ANSWER_OPEN})
"""The opening tag of each role."""

STOP_STRINGS: Mapping[Role, tuple[str, ...]] = MappingProxyType(
    {Role.LONG: (THINK_CLOSE,), Role.SHORT: (ANSWER_CLOSE, RETHINK)}
)
"""The closing tags of each role, to be given to an engine as its stop strings."""

_OWNER = {tag: role for role in ROLES for tag in (OPENINGS[role], *STOP_STRINGS[role])}
TAG_PATTERN = re.compile(r"(?<!<)<(?:think|answer)>|</(?:think|answer|rethink)>")
"""Finds the tags in a text."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of one role, as text. `text` is what the partner reads."""

    role: Role
    text: str
    """The whole turn, tags included, without white space around it."""
    body: str
    """The text between the tags, stripped; with a fault, the best guess at it."""
    closing: Closing | None
    """The role's own closing tag that comes first, also in a faulty turn; None when there is none."""
    fault: Fault | None
    """None for a turn that keeps to the protocol."""

    @property
    def ok(self) -> bool:
        """Whether the turn keeps to the protocol."""
        return self.fault is None


def parse_turn(role: Role, text: str) -> Turn:
    """Read one turn of `role`; a broken turn is a `Turn` with a fault, never an exception."""
    text = text.strip()
    tags = list(TAG_PATTERN.finditer(text))
    opening = next((tag for tag in tags if tag.group() == OPENINGS[role]), None)
    begin = opening.end() if opening else 0
    closing = next((tag for tag in tags if tag.group() in STOP_STRINGS[role] and tag.start() >= begin), None)
    body = text[begin : closing.start() if closing else len(text)].strip()
    rows_of_the_table = (
        (not text, Fault.EMPTY),
        (any(_OWNER[tag.group()] is not role for tag in tags), Fault.FOREIGN_TAG),
        (opening is None, Fault.NO_OPENING),
        (opening is not None and opening.start() > 0, Fault.LEADING_TEXT),
        (closing is None, Fault.NO_CLOSING),
        (len(tags) > 2, Fault.REPEATED_TAG),
        (closing is not None and closing.end() < len(text), Fault.TRAILING_TEXT),
        (not body, Fault.EMPTY),
    )
    return Turn(
        role=role,
        text=text,
        body=body,
        closing=Closing(closing.group()) if closing else None,
        fault=next((fault for fits, fault in rows_of_the_table if fits), None),
    )


def parse_trajectory(text: str) -> list[Turn]:
    """Split the joint text of a trajectory into its turns; [] when there is no tag in it.

    A turn belongs to the role whose tag comes first in it and lasts, as in generation, until that role's
    first closing tag. What stands between that tag and the next opening tag is counted to the turn before it,
    what stands before the first tag to the first turn, so a fault is reported on one turn and the texts of
    the turns joined are the given text but for white space between them. The order of the roles is not judged
    here. Never raises. The solution of a single model, `<think>..</think><answer>..</answer>`, is a long and
    a short turn.
    """
    tags = list(TAG_PATTERN.finditer(text))
    turns: list[Turn] = []
    first, start = 0, 0
    while first < len(tags):
        role = _OWNER[tags[first].group()]
        first = _next_opening(tags, first, role)
        end = tags[first].start() if first < len(tags) else len(text)
        turns.append(parse_turn(role, text[start:end]))
        start = end
    return turns


def _next_opening(tags: list[re.Match[str]], first: int, role: Role) -> int:
    """Index of the opening tag that starts the turn after the one `tags[first]` is in; len(tags) if none."""
    closed = False
    for index in range(first, len(tags)):
        if closed and tags[index].group() in OPENINGS.values():
            return index
        closed = closed or tags[index].group() in STOP_STRINGS[role]
    return len(tags)


@dataclass(frozen=True, kw_only=True)
class RolePrompts:
    """The system prompt of each role; an empty one means that no system message is sent."""

    long: str
    short: str

    def for_role(self, role: Role) -> str:
        """The system prompt of `role`."""
        return self.long if role is Role.LONG else self.short


_TOGETHER = "You and a partner solve the problem together, in turns."

DEFAULT_PROMPTS = RolePrompts(
    long=f"{_TOGETHER} Write one careful thought on the next step that is hard: {THINK_OPEN} ... {THINK_CLOSE}.",
    short=(
        f"{_TOGETHER} Carry on briefly. When the next step is hard, ask for a careful thought: "
        f"{ANSWER_OPEN} ... {RETHINK}. Otherwise end with the final answer in \\boxed{{}}: "
        f"{ANSWER_OPEN} ... {ANSWER_CLOSE}."
    ),
)
"""The system prompts used when a configuration gives none. Short, because every call of a model and every row of
training has one; fine-tuning teaches the rest."""
