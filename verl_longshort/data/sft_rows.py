"""Which trajectories a model is fine-tuned on, and what each row shows and teaches of them. No torch.

A row teaches the turns of one role, as that role sees the trajectory; for a policy with both roles there is one of
each. A model that writes alone has one row that teaches all turns, each tokenised as in the pair's rows: the same text,
the same tokens.

Trajectories longer than `data.max_length` are left out: cutting one would teach a turn without its closing tag. More
than `MOST_LEFT_OUT` of them are taken for a mistake in the settings. The trajectories of some problems may be held out
from training, to measure the loss on them.
"""

import math
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from longshort_reward.errors import UserError
from longshort_reward.protocol import Role, RolePrompts

from verl_longshort.base.files import Records
from verl_longshort.base.seeds import derived_seed
from verl_longshort.core.role_view import RoleView
from verl_longshort.data.records import FILES_KEY, Trajectory, load_trajectories

MOST_LEFT_OUT = 0.05
"""Share of the trajectories that may be longer than `data.max_length`."""


class RoleRow(NamedTuple):
    """A trajectory as one model sees it."""

    ids: list[int]
    """Tokens of the prompt and of all turns."""
    mask: list[int]
    """1 on the tokens of the turns that are taught; as long as `ids`."""


class RoleTrajectory(NamedTuple):
    """A trajectory in which the taught roles have a turn."""

    roles: tuple[Role, ...]
    """Whose turns are taught; the first one's system prompt comes before them."""
    record: Trajectory


def load_role_trajectories(
    paths: str | Path | Sequence[str | Path], writers: Sequence[tuple[Role, ...]], *, key: str = FILES_KEY
) -> Records[RoleTrajectory]:
    """The trajectories of all files, once for each of the rows that `policies.writers_of` says, in turn.

    Those in which the first of a row's roles has no turn are left out. Raises UserError as `load_trajectories`.
    """
    found = [load_trajectories(paths, roles[0], key=key) for roles in writers]
    expected = Records.joined(found).expected
    tagged = [[RoleTrajectory(roles, one) for one in part] for roles, part in zip(writers, found, strict=True)]
    # the first so many of them then have about as many of each role
    return Records([one for some in zip_longest(*tagged) for one in some if one is not None], expected=expected)


def role_row(tokenizer: Any, roles: Sequence[Role], prompts: RolePrompts, record: Trajectory) -> RoleRow:
    """The sequence that teaches the turns of `roles`, which are tokenised alone, as a pair generates them."""
    view = RoleView(tokenizer, roles[0], prompts, record.problem)
    for turn in record.turns:
        if turn.role in roles:
            view.add_own(tokenizer.encode(turn.text, add_special_tokens=False), None)
        else:
            view.add_partner(turn.text)
    return RoleRow(view.context_ids, [0] * len(view.prompt_ids) + list(view.response_mask))


def fitting(rows: Sequence[RoleRow], limit: int) -> list[int]:
    """Indices of the rows of at most `limit` tokens. Raises UserError when too many are longer."""
    kept = [index for index, row in enumerate(rows) if len(row.ids) <= limit]
    if len(rows) - len(kept) > MOST_LEFT_OUT * len(rows):
        longest = max(len(row.ids) for row in rows)
        remedy = (
            f"the longest sequence has {longest} tokens, and {len(rows) - len(kept)} of {len(rows)} are longer than "
            f"this (at most {MOST_LEFT_OUT:.0%} are left out): raise it"
        )
        raise UserError("data.max_length", limit, remedy)
    return kept


def held_out_problems(problems: Sequence[str], share: float) -> set[str]:
    """`share` of the distinct problems, rounded up; which ones depends on their texts alone."""
    ordered = sorted(set(problems), key=lambda problem: (derived_seed("held out", problem), problem))
    return set(ordered[: math.ceil(share * len(ordered))])
