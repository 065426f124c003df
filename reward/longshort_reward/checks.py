"""Checks of configuration values; each error names the key, the value and the remedy."""

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from longshort_reward.errors import UserError


def check_keys(block: Any, where: str, *, known: Sequence[str], required: Sequence[str] = ()) -> None:
    """Refuse a block that is no mapping, has a key nobody reads, or lacks a required one.

    Raises:
        UserError: with the nearest known key for an unknown one.
    """
    if not isinstance(block, Mapping):
        raise UserError(where, block, f"must be a block with the keys {', '.join(known)}")
    for key in block:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
            raise UserError(f"{where}.{key}", block[key], f"unknown key; {hint}")
    for key in required:
        if key not in block:
            raise UserError(f"{where}.{key}", None, f"missing; keys of this block: {', '.join(known)}")


def number(value: Any, key: str, *, above: float | None = None) -> float:
    """`value` as a finite float of at least 0, or greater than `above`.

    Raises:
        UserError: it is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(key, value, "must be a finite number")
    if above is None and value < 0:
        raise UserError(key, value, "must be 0 or more; 0 switches the term off")
    if above is not None and value <= above:
        raise UserError(key, value, f"must be above {above:g}")
    return float(value)


def whole(value: Any, key: str, *, least: int = 0) -> int:
    """`value` as an int of at least `least`.

    Raises:
        UserError: it is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(key, value, f"must be a whole number from {least} on")
    return value
