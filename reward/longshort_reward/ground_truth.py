"""What may be a ground truth: one rule for preparing data, training and evaluation."""

import math
import numbers
import re
from decimal import Decimal
from typing import Any

from longshort_reward.reading.boxes import bare_boxed, last_boxed

LONGEST = 2000
_MISSING = frozenset({"nan", "none", "null", "n/a", "<na>", "nat", "nil"})
_STRUCTURE = re.compile(r"""[\[{(]\s*['"]|b['"]""")
_MARK = "####"


def is_missing(value: Any) -> bool:
    """Whether a field holds no answer at all: None, NaN, blank, or a word for it such as `None` and `NaN`."""
    if isinstance(value, str):
        return not value.strip() or value.strip().casefold() in _MISSING
    return value is None or (isinstance(value, (numbers.Real, Decimal)) and bool(value != value))


def ground_truth_text(ground_truth: Any) -> str:
    r"""A ground truth as the text that answers are compared with.

    A string is the answer alone, or a solution with the answer behind `####` (GSM8K) or in its last `\boxed{}`.

    Raises:
        TypeError: it is neither a string nor a number.
        ValueError: it is no answer: missing, not finite, a printed list, longer than 2000 characters.
    """
    if isinstance(ground_truth, str):
        return _text(ground_truth)
    if isinstance(ground_truth, bool) or not isinstance(ground_truth, (numbers.Real, Decimal)):
        kind = type(ground_truth).__name__
        raise TypeError(f"ground_truth = {ground_truth!r:.80}: is a {kind}; give one answer as a string or a number")
    if isinstance(ground_truth, numbers.Rational):
        return str(ground_truth)
    if not math.isfinite(ground_truth):
        raise ValueError(f"ground_truth = {ground_truth}: is not a finite number; give it as LaTeX, such as \\infty")
    value = ground_truth if isinstance(ground_truth, Decimal) else Decimal(repr(float(ground_truth)))
    return str(int(value)) if value == value.to_integral_value() else format(value, "f")


def solution_answer(solution: str) -> str | None:
    r"""The answer that a worked solution states: behind `####`, or in its last box; None if it states none.

    Boxes that are one answer (`x = \boxed{2}` or `x = \boxed{3}`) are a list, see `last_boxed`.
    """
    if _MARK in solution:
        return solution.rpartition(_MARK)[2].strip() or None
    answer = last_boxed(solution) or bare_boxed(solution)
    return answer.strip() or None if answer else None


def _text(given: str) -> str:
    text = given
    if _MARK in given or "boxed" in given or "fbox" in given:
        text = solution_answer(given) or ("" if _MARK in given or last_boxed(given) is not None else given)
    if not text.strip() or len(text) > LONGEST:
        raise ValueError(
            f"ground_truth = {text[:80]!r}: must have 1 to {LONGEST} characters and has {len(text)}; "
            "give the final answer alone"
        )
    if is_missing(text) or _STRUCTURE.match(text.strip()):
        raise ValueError(f"ground_truth = {text[:80]!r}: is no answer; give the final answer alone")
    return text.strip()
