"""Decides answers without a computer algebra system: microseconds each, and safer than one where it applies.

It reads bare words as products of letters (`east` equals `seat`), drops units, and takes two numbers that differ by
less than its tolerance for the same.
"""

import math
import re

from longshort_reward.reading.choices import choice, has_several_choices, leading_choice
from longshort_reward.reading.equality import equal
from longshort_reward.reading.forms import Words
from longshort_reward.reading.parsing import parse
from longshort_reward.reading.reader import read
from longshort_reward.reading.tokens import UnreadableError, latex
from longshort_reward.reading.trimming import trimmed

__all__ = ["choice", "decide", "is_runaway", "is_words", "leading_choice", "normalise"]

_LARGEST_POWER_DIGITS = 1e6
_TOWER = re.compile(r"\d+(?:\^\d+)+")
_FACTORIAL = re.compile(r"(?<!\d)\d{6,}!")


def decide(candidate: str, gold: str) -> bool | None:
    """Whether two answers are equal, or None when it takes algebra to tell."""
    letter = choice(gold)
    if letter:
        if has_several_choices(candidate):
            return False
        if chosen := leading_choice(candidate):
            return chosen == letter
    return equal(candidate, gold)


def normalise(answer: str) -> str:
    """The answer without what never changes its meaning: fonts, spacing, an introduction, a final stop."""
    try:
        return latex(trimmed(read(answer)))
    except UnreadableError:
        return answer.strip()


def is_words(answer: str) -> bool:
    """Whether an answer is text, not mathematics."""
    try:
        return isinstance(parse(read(answer)), Words)
    except UnreadableError:
        return False


def is_runaway(answer: str) -> bool:
    """Whether evaluating the answer would surely blow up: a huge power tower or factorial.

    Only spares time: whatever passes is still evaluated under a time and a memory limit.
    """
    text = re.sub(r"[{}\s]", "", answer)
    towers = (_digits(tower.group().split("^")) for tower in _TOWER.finditer(text))
    return bool(_FACTORIAL.search(text)) or max(towers, default=0.0) > _LARGEST_POWER_DIGITS


def _digits(tower: list[str]) -> float:
    """Decimal digits of `a^b^c...`, about; may be infinite."""
    exponent, digits = _float(tower[-1]), 1.0
    for base in map(_float, reversed(tower[:-1])):
        digits = exponent * math.log10(base) if base > 1 else 0.0
        exponent = 10**digits if digits < 300 else math.inf
    return digits


def _float(digits: str) -> float:
    return float(digits) if len(digits) < 300 else 1e300
