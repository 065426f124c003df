"""What a pair's answer consists of, in the order in which it happens.

`TurnStarted`, any number of `TextDelta`, `TurnEnded`, again and again for one turn after the other, and `Answered` at
the end. The texts are those between the tags; no event holds a tag of the protocol.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longshort_reward.protocol import Closing, Fault, Role

from verl_longshort.core.environment import StopReason


@dataclass(frozen=True, kw_only=True)
class TurnStarted:
    """A role was asked for a turn."""

    role: Role
    number: int
    """From 1 on."""
    last: bool
    """No turn can follow this one: whatever it says is the end of the answer."""


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """More of the turn's text."""

    role: Role
    text: str


@dataclass(frozen=True, kw_only=True)
class TurnEnded:
    """The turn is complete."""

    role: Role
    number: int
    text: str
    """All its deltas."""
    tokens: int
    closing: Closing | None
    """`Closing.RETHINK`: the short role asked for another thought; None: cut, or ended without a tag."""
    fault: Fault | None
    """What is wrong with it; None: it keeps to the protocol."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The end."""

    answer: str
    """The text of the last turn if the short role wrote it, however it ended; `stop_reason` says if it is complete."""
    stop_reason: StopReason
    """`StopReason.ANSWERED` for a complete answer."""
    fault_role: Role | None
    """Who broke the protocol, if anybody."""
    turns: Sequence[TurnEnded]
    tokens: Mapping[Role, int]
    """Generated ones."""
    prompt_tokens: Mapping[Role, int]
    """Of each role's prompt, which holds the conversation; each is in its own tokens."""
    rethinks: int
    seed: int
    """With it, the same request gives the same answer."""
    seconds: float


Event = TurnStarted | TextDelta | TurnEnded | Answered
