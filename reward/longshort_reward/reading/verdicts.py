"""Verdicts of three values: equal, different, not known without algebra (None)."""

from collections.abc import Iterable


def all_of(verdicts: Iterable[bool | None]) -> bool | None:
    """Three-valued: False if one is, None if one is not known."""
    unknown = False
    for verdict in verdicts:
        if verdict is False:
            return False
        unknown = unknown or verdict is None
    return None if unknown else True


def any_of(verdicts: Iterable[bool | None]) -> bool | None:
    unknown = False
    for verdict in verdicts:
        if verdict:
            return True
        unknown = unknown or verdict is None
    return None if unknown else False
