"""Which policies a pair has: one for each role, or a single one that plays both (tied)."""

from collections.abc import Sequence

from longshort_reward.protocol import ROLES, Role

TIED = "tied"
"""The name of the policy that plays both roles; others have the name of their role."""

POLICIES: tuple[str, ...] = (*(role.value for role in ROLES), TIED)
"""Every name that a policy may have."""

BOTH = "both"
"""Both roles, where a setting or a record says which."""

ALONE = "alone"
"""Nobody's role: one model that writes the turns of both by itself, as one text (`single_model.SingleMode.JOINT`)."""


def players(*, tied: bool) -> dict[str, tuple[Role, ...]]:
    """The policies of a pair by name, with the roles that each plays."""
    return {TIED: ROLES} if tied else {role.value: (role,) for role in ROLES}


def said_roles(roles: Sequence[Role]) -> str:
    """`long`, `short` or `both`."""
    return BOTH if len(roles) > 1 else roles[0].value


def roles_of(said: str) -> tuple[Role, ...]:
    """The roles that `long`, `short` or `both` says. Raises ValueError for anything else."""
    return ROLES if said == BOTH else (Role(said),)


def writers_of(said: str) -> tuple[tuple[Role, ...], ...]:
    """Of the rows that one trajectory gives to SFT of `long`, `short`, `both` or `alone`: whose turns each teaches.

    Raises ValueError for anything else.
    """
    return (ROLES,) if said == ALONE else tuple((role,) for role in roles_of(said))
