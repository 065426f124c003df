"""From thoughts that stay long and the gaps between them to the turns of a joint trajectory.

A gap is a run of thoughts that become short. Long speaks first and short last, so the first thought always
stays long, as in the paper (section 4), and behind a kept last thought there is a gap without thoughts, for
the final answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from longshort_reward.protocol import ANSWER_CLOSE, ANSWER_OPEN, RETHINK, THINK_CLOSE, THINK_OPEN, Role

from verl_longshort.data.records import TrajectoryTurn

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
