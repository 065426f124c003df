"""From thoughts that stay long and the gaps between them to the turns of a joint trajectory.

A gap is a run of thoughts that become short. Long speaks first and short last, so the first thought always
stays long, as in the paper (section 4), and behind a kept last thought there is a gap without thoughts, for
the final answer.
"""

from collections.abc import Iterator, Sequence
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
    gaps = [
        Gap(first=run[0], last=run[-1])
        for kept, run in ((kept, list(run)) for kept, run in groupby(range(len(keep)), lambda k: keep[k]))
        if not kept
    ]
    return [*gaps, Gap(first=len(keep), last=len(keep) - 1)] if keep[-1] else gaps


def fill_gaps(texts: Sequence[str], keep: Sequence[bool], fillings: Sequence[str], *, separator: str) -> list[Piece]:
    """The pieces in order: kept thoughts as they are, each gap as its filling.

    What then stands beside a piece of the same role is merged with it. An empty filling leaves its gap out.

    Raises:
        ValueError: not one filling per gap.
    """
    pieces = list(_pieces(texts, keep, fillings))
    return [
        (role, (separator if role is Role.LONG else " ").join(text for _, text in run).strip())
        for role, run in ((role, list(run)) for role, run in groupby(pieces, key=lambda piece: piece[0]))
    ]


def as_turns(pieces: Sequence[Piece]) -> list[TrajectoryTurn]:
    """The turns with their tags; each piece is one.

    Raises:
        ValueError: long does not begin or short does not end.
    """
    roles = [role for role, _ in pieces]
    if not roles or roles[0] is not Role.LONG or roles[-1] is not Role.SHORT:
        raise ValueError(f"pieces: the roles are {', '.join(roles) or 'none'}; long must begin and short end")
    last = len(pieces) - 1
    return [
        TrajectoryTurn(role=role, text=_tagged(role, text, ends=index == last))
        for index, (role, text) in enumerate(pieces)
    ]


def _pieces(texts: Sequence[str], keep: Sequence[bool], fillings: Sequence[str]) -> Iterator[Piece]:
    filled = dict(zip((gap.first for gap in find_gaps(keep)), fillings, strict=True))
    for index, (text, kept) in enumerate(zip(texts, keep, strict=True)):
        if kept:
            yield Role.LONG, text
        elif filled.get(index):
            yield Role.SHORT, filled[index]
    if filled.get(len(texts)):
        yield Role.SHORT, filled[len(texts)]


def _tagged(role: Role, text: str, *, ends: bool) -> str:
    if role is Role.LONG:
        return f"{THINK_OPEN} {text} {THINK_CLOSE}"
    return f"{ANSWER_OPEN} {text} {ANSWER_CLOSE if ends else RETHINK}"
