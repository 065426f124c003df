"""Decides the plain cases without a computer algebra system: numbers, words, choice letters, equal strings.

Most answers are plain, and a decision here takes microseconds. Some are also safer here than in math-verify:
it reads bare words as products of letters (`east` equals `seat`), knows no percent sign inside `\\boxed`, and
drops units, the base of a number and the difference between a set and a pair.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

_LARGEST_POWER_DIGITS = 1e6
_WRAPPER = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it|sf)|mbox|hbox|operatorname)\s*\{([^{}]*)\}")
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_REWRITES = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"\\[dt]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:left|right)(?![a-zA-Z])", ""),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"(?<!\\)\\[,;:!]", ""),
        (r"(?<!\\)\\ |~|\\q?quad(?![a-zA-Z])", " "),
        (r"\{,\}", ","),
        (r"(?<=\d)\s*percent$", "%"),
        (r"\\pmod ?(\w)(?!\w)", r"\\pmod{\1}"),
        (r"\\([%$])", r"\1"),
        ("\u2212", "-"),
        (r"\s+", " "),
        # A space between two letters or digits means something, every other one does not.
        (r"(?<![a-zA-Z0-9]) | (?![a-zA-Z0-9])", ""),
        (r"(?<=.)[.,]$", ""),
    )
)
_DECIMAL = re.compile(
    r"(?P<digits>\d{1,60}(?:\.\d{0,60})?|\.\d{1,60}"
    r"|\d{1,3}(?:(?:,\d{3}){1,15}|(?: \d{3}){1,15})(?:\.\d{1,60})?)"
    r"(?:[eE](?P<e>[+-]?\d{1,3})|\\(?:times|cdot) ?10\^\{?(?P<ten>-?\d{1,3})\}?)?"
)
_REPEATING = re.compile(r"(?P<whole>\d{0,60})\.(?P<fixed>\d{0,60})\\overline\{?(?P<again>\d{1,60})\}?")
_FRACTION = re.compile(
    r"(?:(?P<whole>\d{1,60}) (?=\d+/))?(?:"
    r"\\frac\{(?P<a>-?\d{1,60})\}\{(?P<b>\d{1,60})\}|\\frac(?P<c>\d)(?P<d>\d)|(?P<e>\d{1,60})/(?P<f>\d{1,60}))"
)
_GOLD_CHOICE = re.compile(r"\(([A-J])\)|([A-J])")
_CHOICE = re.compile(r"(?:[Oo]ption |[Cc]hoice )?(?:\(([A-Ja-j])\)|([A-Ja-j])\)|([A-J])(?:[.:]|$))")
_BASE = re.compile(r"([0-9A-Z]+)_\{?(\d+)\}?")
_CURRENCY = re.compile(r"^[$€£¥]")
_DEGREES = re.compile(r"\^(?:\\circ|\{\\circ\})$")
_SPELLINGS = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"°|\\degree(?![a-zA-Z])", r"^\\circ "),
        (r"√ ?(\d+|[a-zA-Z])", r"\\sqrt{\1}"),
        (r"√ ?[({]([^(){}]*)[)}]", r"\\sqrt{\1}"),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"^\s*\\(?:text|mathrm|mbox)\s*\{([^{}]*\d[^{}]*)\}\s*$", r"\1"),
    )
)
_SEVERAL_CHOICES = re.compile(r"\(?[A-J]\)?(?:(?: ?(?:,|;|/|&|and|or) ?)+\(?[A-J]\)?)+")
_UNIT = re.compile(r"(?P<amount>.*[\d})]) ?(?P<unit>[A-Za-z]+)$")
_UNITS = {
    name + plural: names[0]
    for names in (
        *(("mm", "millimeter"), ("cm", "centimeter"), ("m", "meter"), ("km", "kilometer")),
        *(("inch", "in", "inches"), ("ft", "foot", "feet"), ("yd", "yard"), ("mi", "mile")),
        *(("day",), ("week",), ("year",), ("ms", "millisecond"), ("s", "sec", "second")),
        *(("min", "minute"), ("h", "hr", "hour"), ("degree",), ("radian",)),
        *(("mg",), ("g", "gram"), ("kg", "kilogram"), ("dollar",), ("cent",)),
    )
    for name in names
    for plural in (("", "s") if len(name) > 2 else ("",))
}
_WORDS = re.compile(r"[^\W\d_]+(?:[ '\-][^\W\d_]+)*")
_TOWER = re.compile(r"\d+(?:\^\d+)+")
_FACTORIAL = re.compile(r"\d{6,}!")


@dataclass(frozen=True, kw_only=True)
class _Number:
    value: Fraction
    decimal: bool
    percent: bool


def decide(candidate: str, gold: str, *, boxed: bool = True) -> bool | None:
    """Whether two answers are equal, or None when it takes algebra to tell.

    `boxed` False means that the candidate is a text which may hold more than the answer: then only equality
    of the whole is decided here.
    """
    ours, theirs = normalise(candidate), normalise(gold)
    if not ours:
        return False
    if ours == theirs:
        return True
    a, b = _number(ours), _number(theirs)
    if a and b:
        return _equal(a, b)
    bases = _BASE.fullmatch(ours), _BASE.fullmatch(theirs)
    if bases[0] and bases[1]:
        return bases[0].groups() == bases[1].groups()
    if not boxed:
        return True if is_words(gold) and ours.casefold() == theirs.casefold() else None
    if _is_pair_and_set(ours, theirs):
        return False
    if (decided := _with_units(ours, theirs)) is not None:
        return decided
    letter = choice(gold)
    if letter and _SEVERAL_CHOICES.fullmatch(ours):
        return False
    if letter and (chosen := leading_choice(ours)):
        return chosen == letter
    words = is_words(gold) or (is_words(candidate) and _WORDS.fullmatch(theirs))
    return ours.casefold() == theirs.casefold() if words else None


def normalise(answer: str) -> str:
    """The answer without what never changes its meaning: delimiters, spacing, text wrappers, a final stop."""
    text = answer.strip()
    for opening, closing in _DELIMITERS:
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and inner and "$" not in inner:
            text = inner
            break
    text = _WRAPPER.sub(r"\1", text)
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    return text.strip()


def spell_out(answer: str) -> str:
    """The answer with notations that math-verify does not read in the words of those that it does."""
    for pattern, new in _SPELLINGS:
        answer = pattern.sub(new, answer)
    return answer


def choice(gold: str) -> str | None:
    """The letter of a multiple-choice ground truth (`B`, `(B)`, `\\text{(B)}`), or None."""
    found = _GOLD_CHOICE.fullmatch(normalise(gold))
    return found[1] or found[2] if found else None


def leading_choice(answer: str) -> str | None:
    """The letter that an answer is or begins with: `B`, `(b) 12`, `B. 12`; None when it is no such answer."""
    found = _CHOICE.match(normalise(answer))
    return (found[1] or found[2] or found[3]).upper() if found else None


def is_words(answer: str) -> bool:
    """Whether an answer is text, not mathematics: words only, in a text command or of four letters up.

    Short bare runs such as `xy` or `abc` may be products, so they are left to algebra.
    """
    text = normalise(answer)
    if len(text) < 2 or not _WORDS.fullmatch(text):
        return False
    return bool(_WRAPPER.search(answer)) or any(len(word) >= 4 for word in re.split(r"[ '\-]", text))


def is_runaway(answer: str) -> bool:
    """Whether evaluating the answer would surely blow up: a huge power tower or factorial.

    Only spares time: whatever passes is still evaluated under a time and a memory limit.
    """
    text = re.sub(r"[{}\s]", "", answer)
    towers = (_digits(tower.group().split("^")) for tower in _TOWER.finditer(text))
    return bool(_FACTORIAL.search(text)) or max(towers, default=0.0) > _LARGEST_POWER_DIGITS


def _digits(tower: list[str]) -> float:
    """Decimal digits of `a^b^c...`, about; may be infinite."""
    exponent, digits = float(tower[-1]), 1.0
    for base in map(float, reversed(tower[:-1])):
        digits = exponent * math.log10(base) if base > 1 else 0.0
        exponent = 10**digits if digits < 300 else math.inf
    return digits


def _is_pair_and_set(ours: str, theirs: str) -> bool:
    sets = [text.startswith(r"\{") and text.endswith(r"\}") for text in (ours, theirs)]
    pairs = [re.fullmatch(r"\([^()]*\)", text) for text in (ours, theirs)]
    return any(sets) and any(pairs)


def _with_units(ours: str, theirs: str) -> bool | None:
    """math-verify drops units, so 3 m would be 3 cm. None unless both sides have a unit that is known."""
    found = _UNIT.fullmatch(ours), _UNIT.fullmatch(theirs)
    if not (found[0] and found[1]):
        return None
    units = [_UNITS.get(side["unit"]) for side in found if side]
    if None in units:
        return None
    a, b = _number(found[0]["amount"]), _number(found[1]["amount"])
    if units[0] != units[1]:
        return False
    return _equal(a, b) if a and b else None


def _number(text: str) -> _Number | None:
    """The number that a normalised answer is: whole, decimal, scientific, fraction, percentage, dollars."""
    body = text.removeprefix("-").removeprefix("+")
    sign = -1 if text.startswith("-") else 1
    percent = body.endswith("%")
    body = _CURRENCY.sub("", body).removesuffix("%")
    body = _DEGREES.sub("", body)
    if found := _DECIMAL.fullmatch(body):
        value = Fraction(re.sub("[, ]", "", found["digits"])) * Fraction(10) ** int(found["e"] or found["ten"] or 0)
        return _Number(value=sign * value, decimal="." in body or value.denominator > 1, percent=percent)
    if found := _REPEATING.fullmatch(body):
        fixed, again = found["fixed"], found["again"]
        value = Fraction(int(found["whole"] + fixed or 0)) + Fraction(int(again), 10 ** len(again) - 1)
        return _Number(value=sign * value / 10 ** len(fixed), decimal=False, percent=percent)
    if found := _FRACTION.fullmatch(body):
        top, bottom = (int(group) for group in found.groups()[1:] if group is not None)
        if bottom:
            value = int(found["whole"] or 0) + Fraction(top, bottom)
            return _Number(value=sign * value, decimal=False, percent=percent)
    return None


def _equal(a: _Number, b: _Number) -> bool:
    """A percent sign on one side only is read both ways, as a unit left out and as hundredths."""
    rounded = a.decimal or b.decimal
    if a.percent == b.percent:
        return _close(a.value, b.value, rounded)
    share, other = (a, b) if a.percent else (b, a)
    return _close(share.value, other.value, rounded) or _close(share.value / 100, other.value, True)


def _close(a: Fraction, b: Fraction, rounded: bool) -> bool:
    """Exact, or for decimals equal in six decimal places; small numbers also need three equal digits."""
    if not rounded:
        return a == b
    return abs(a - b) <= min(Fraction(1, 2_000_000), max(abs(a), abs(b)) / 1000)
