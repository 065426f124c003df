"""Amounts: a number or an expression with its unit, several of them in a row, and times of day.

`3\\text{ hours }5\\text{ minutes}` is one amount, `3\\text{ cm}, 4\\text{ cm}` are two and no business of this module.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from longshort_reward.reading.rationals import Number, equal_numbers, number
from longshort_reward.reading.tokens import Token
from longshort_reward.reading.unit_phrases import CURRENCIES, PERCENT, UnitReader
from longshort_reward.reading.units import Unit, known_unit, ratio

_CURRENCY_WORDS = frozenset({"usd", "us", "eur", "gbp", "rs", "cny", "rmb", "inr", "jpy", "cad", "aud", "hk"})
_SIZES = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9}
_DOZEN, _CENT = known_unit("dozen"), known_unit("cent")
_OPENING, _CLOSING = frozenset({"(", "[", "{", r"\{"}), frozenset({")", "]", "}", r"\}"})


@dataclass(frozen=True, slots=True)
class Amount:
    """An expression with a unit; without one, just an expression."""

    tokens: tuple[Token, ...]
    value: Number | None
    unit: Unit | None

    def scaled(self, factor: Fraction) -> Number | None:
        """Its number times a factor."""
        return None if self.value is None else Number(self.value.value * factor, _places(self.value, factor))


def _places(value: Number, factor: Fraction) -> int | None:
    return value.places if factor == 1 else None


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day."""

    seconds: int
    half: str | None
    """`am`, `pm`, or None where it is not said."""


def same_clock(a: Clock, b: Clock) -> bool:
    """Equal times; a half of the day that only one side names is not compared."""
    if a.half and b.half:
        return _on_the_day(a) == _on_the_day(b)
    if a.seconds == b.seconds:
        return True
    named, other = (a, b) if a.half else (b, a)
    # 16:20 is 4:20 p.m.; without p.m. it may be meant so or not.
    return named.half is not None and other.seconds >= 13 * 3600 and _on_the_day(named) == other.seconds


def _on_the_day(clock: Clock) -> int:
    hours, rest = divmod(clock.seconds, 3600)
    if clock.half == "pm" and hours < 12:
        hours += 12
    if clock.half == "am" and hours == 12:
        hours = 0
    return hours * 3600 + rest


def read_clock(tokens: Sequence[Token]) -> Clock | None:
    """The time of day that the tokens are: `4:20`, `16:05:30`, `6 p.m.`; None if they are none."""
    tokens = list(tokens)
    half = None
    if tokens and tokens[-1].kind == "text":
        word = tokens[-1].value.casefold()
        if word in ("am", "pm"):
            half = word
            tokens.pop()
        elif word in ("noon", "midnight", "o'clock", "hours") and len(tokens) > 3:
            tokens.pop()
    parts, signs = [token.value for token in tokens[::2]], [token.value for token in tokens[1::2]]
    if not tokens or len(tokens) % 2 == 0 or set(signs) - {":"} or not all(part.isdigit() for part in parts):
        return None
    if len(parts) > 3 or len(parts[0]) > 2 or any(len(part) != 2 or int(part) >= 60 for part in parts[1:]):
        return None
    if int(parts[0]) > 24 or (len(parts) == 1 and half is None) or any(token.spaced for token in tokens[1:]):
        return None
    hours, minutes, seconds = (*map(int, parts), 0, 0)[:3]
    return Clock(hours * 3600 + minutes * 60 + seconds, half)


def read_amount(tokens: Sequence[Token]) -> Amount | None:
    """The amount that the tokens are; None if there is text among them that is no unit."""
    tokens = list(tokens)
    prefix, tokens = _currency_in_front(tokens)
    amounts: list[Amount] = []
    position = 0
    while position < len(tokens):
        start = _unit_begins(tokens, position)
        value = tokens[position:start]
        if not value or any(token.kind == "text" for token in value):
            return None
        if start < len(tokens) and value[-1].value == "/" and len(value) > 1:
            value, start = value[:-1], start - 1
        reader = UnitReader(tokens, start, prefix)
        unit, scale, end = reader.unit, reader.scale, reader.end
        if end == start and start < len(tokens):
            return None
        if prefix is not None and len(value) > 1 and value[-1].value in _SIZES and value[-2].kind == "number":
            value, scale = value[:-1], scale * _SIZES[value[-1].value]
        amounts.append(_amount(value, unit, scale))
        position = _behind_and(tokens, end) if end < len(tokens) else end
    if len(amounts) == 1:
        return amounts[0]
    return _summed(amounts) if amounts else None


def _currency_in_front(tokens: list[Token]) -> tuple[Unit | None, list[Token]]:
    sign = ""
    if tokens and tokens[0].value == "-":
        sign, tokens = "-", tokens[1:]
    count = 0
    if tokens and tokens[0].kind == "text" and tokens[0].value.casefold() in _CURRENCY_WORDS:
        count = 1
    elif [token.value for token in tokens[:2]] == ["U", "S"] or [token.value for token in tokens[:2]] == ["R", "s"]:
        count = 2
    else:
        letters = next((i for i, token in enumerate(tokens[:4]) if token.kind != "letter" or token.value.islower()), 0)
        count = letters if letters and tokens[letters].value in CURRENCIES else 0
    if 0 < count < len(tokens) and tokens[count].value == ".":
        count += 1
    known = known_unit(tokens[0].value) if count == 1 else None
    if len(tokens) > count and tokens[count].value in CURRENCIES:
        known = known_unit(tokens[count].value)
        count += 1
    rest = tokens[count:]
    if not count or (known is None and count < 2) or not rest:
        return None, ([Token("sign", "-"), *tokens] if sign else tokens)
    return known or known_unit("₹"), ([Token("sign", "-"), *rest] if sign else rest)


def _behind_and(tokens: list[Token], position: int) -> int:
    joins = tokens[position].kind == "text" and tokens[position].value.casefold() == "and"
    return position + 1 if joins and position + 1 < len(tokens) else position


def _unit_begins(tokens: list[Token], position: int) -> int:
    """Where the first unit begins, outside all brackets."""
    depth = 0
    for index in range(position, len(tokens)):
        token = tokens[index]
        if token.kind == "text" and depth == 0:
            return index
        if depth == 0 and index > position and _is_unit_sign(tokens, index):
            return index
        depth += 1 if token.value in _OPENING else -1 if token.value in _CLOSING else 0
    return len(tokens)


def _is_unit_sign(tokens: list[Token], index: int) -> bool:
    value, before = tokens[index].value, tokens[index - 1]
    amount_ends = before.kind == "number" or before.value in ("}", ")")
    if value in ("°", "%", "'", '"', "¢") or value in CURRENCIES:
        return amount_ends or (value in ("°", "%") and before.kind == "letter")
    if value in ("k", "M", "m") and index == len(tokens) - 2 and tokens[-1].value == r"\Omega":
        return amount_ends
    if value == r"\Omega":
        return amount_ends and index == len(tokens) - 1
    return value == r"\mu" and amount_ends and index + 1 < len(tokens) and tokens[index + 1].kind == "text"


def _amount(value: Sequence[Token], unit: Unit | None, scale: int) -> Amount:
    found = number(value)
    tokens = tuple(value)
    if scale != 1:
        found = None if found is None else Number(found.value * scale)
        tokens = (*tokens, Token("command", r"\cdot"), Token("number", str(scale)))
    return Amount(tokens, found, unit)


def _summed(amounts: list[Amount]) -> Amount | None:
    """`3 hours 5 minutes` as one amount: all of one kind, each unit smaller than the one before."""
    first = amounts[0]
    if first.unit is None:
        return None
    total = Fraction(0)
    last: Fraction | None = None
    for amount in amounts:
        factor = ratio(amount.unit, first.unit) if amount.unit is not None else None
        if factor is None or amount.value is None or (last is not None and factor >= last):
            return None
        sign = -1 if first.value is not None and first.value.value < 0 else 1
        total += (1 if amount is first else sign) * amount.value.value * factor
        last = factor
    return Amount((), Number(total), first.unit)


def equal_amounts(a: Amount, b: Amount) -> bool | None:
    """Whether two amounts are equal; None when their expressions need algebra (`needs_algebra` says which).

    A unit on one side only counts as left out. A percent sign, `cents` and `dozen` may also mean their factor then.
    """
    if a.unit is not None and b.unit is not None:
        factor = ratio(a.unit, b.unit)
        if factor is None:
            return False
        scaled = a.scaled(factor)
        if scaled is not None and b.value is not None:
            return equal_numbers(scaled, b.value)
        return None if factor == 1 else False
    if a.unit is None and b.unit is None:
        return None if a.value is None or b.value is None else equal_numbers(a.value, b.value)
    with_unit, other = (a, b) if a.unit is not None else (b, a)
    if with_unit.value is None or other.value is None:
        return None
    if equal_numbers(with_unit.value, other.value):
        return True
    factors = {PERCENT: Fraction(1, 100), _CENT: Fraction(1, 100), _DOZEN: Fraction(12)}
    factor = factors.get(with_unit.unit)
    if factor is None:
        return False
    scaled = with_unit.scaled(factor)
    return scaled is not None and equal_numbers(scaled, other.value)
