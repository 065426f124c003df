"""Numbers exactly: what a run of tokens comes to as a fraction, and when two numbers are the same.

Whole numbers, decimals, repeating decimals, fractions, mixed numbers, sums, products, powers, factorials and binomial
coefficients of them. Roots, logarithms and constants are left to the computer algebra system.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from longshort_reward.reading.tokens import Token

_LONGEST = 6000
"""Decimal digits of the largest number that is computed here."""
_LARGEST_FACTORIAL = 2500
_DEEPEST = 40
_TIMES = frozenset({r"\times", r"\cdot", "*"})
_DIVIDE = frozenset({"/", r"\div"})


@dataclass(frozen=True, slots=True)
class Number:
    """A number, and how it is written."""

    value: Fraction
    places: int | None = None
    """Digits behind the point, if it is written as a decimal."""


def equal_numbers(a: Number, b: Number) -> bool:
    """Exactly, but that a decimal of six places or more may be rounded (of seven or more: cut off).

    Of a small number three digits must be there, or it would equal its neighbours.
    """
    if a.value == b.value:
        return True
    places = [number.places for number in (a, b) if number.places is not None]
    if not places or min(places) < 0:
        return False
    distance, size = abs(a.value - b.value), max(abs(a.value), abs(b.value))
    if max(places) >= 15 and distance * 10**14 <= size:  # what floating-point arithmetic leaves
        return True
    fewest = min(place for place in places) if len(places) == 2 else places[0]
    if fewest < 6 or distance * 1000 > size:
        return False
    step = Fraction(1, 10**fewest)
    return distance < step if fewest > 6 else 2 * distance <= step


def number(tokens: Sequence[Token]) -> Number | None:
    """The number that the tokens are, or None."""
    if not tokens or any(token.kind in ("text", "letter") for token in tokens):
        return None
    literal = _literal(tokens)
    if literal is not None:
        return literal
    try:
        value = _Evaluator(tokens).whole()
    except (ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return None
    return Number(value)


def _literal(tokens: Sequence[Token]) -> Number | None:
    sign = 1
    while tokens and tokens[0].value in ("-", "+"):
        sign *= -1 if tokens[0].value == "-" else 1
        tokens = tokens[1:]
    if not tokens or tokens[0].kind != "number":
        return None
    text = tokens[0].value
    rest = [token.value for token in tokens[1:]]
    shift = 0
    mantissa, _, exponent = text.lower().partition("e")
    if exponent:
        shift = int(exponent)
    if rest[:1] and rest[0] in _TIMES and rest[1:4] == ["10", "^", "{"] and rest[-1:] == ["}"]:
        power = "".join(rest[4:-1])
        if not power.lstrip("+-").isdigit() or len(power) > 5:
            return None
        shift, rest = shift + int(power), []
    if rest or abs(shift) > _LONGEST or len(mantissa) > _LONGEST:
        return None
    places = len(mantissa.partition(".")[2]) - shift if "." in mantissa else -shift if shift < 0 else None
    return Number(sign * Fraction(mantissa) * Fraction(10) ** shift, places)


class _NotANumberError(ValueError):
    pass


class _Evaluator:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0

    def whole(self) -> Fraction:
        value = self._sum()
        if self._position < len(self._tokens):
            raise _NotANumberError
        return value

    def _next(self) -> str:
        return self._tokens[self._position].value if self._position < len(self._tokens) else ""

    def _kind(self) -> str:
        return self._tokens[self._position].kind if self._position < len(self._tokens) else ""

    def _take(self, value: str) -> bool:
        found = self._next() == value
        self._position += found
        return found

    def _sum(self) -> Fraction:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _NotANumberError
        value = self._product()
        while self._next() in ("+", "-"):
            minus = self._take("-") or not self._take("+")
            term = self._product()
            value += -term if minus else term
        self._depth -= 1
        return _checked(value)

    def _product(self) -> Fraction:
        sign = 1
        while self._next() in ("+", "-"):
            sign *= -1 if self._next() == "-" else 1
            self._position += 1
        value = self._power()
        while True:
            if self._next() in _TIMES:
                self._position += 1
                value *= self._signed()
            elif self._next() in _DIVIDE:
                self._position += 1
                value /= self._signed()
            elif self._next() in ("(", r"\frac", r"\binom"):
                value *= self._power()
            else:
                return sign * _checked(value)
            _checked(value)

    def _signed(self) -> Fraction:
        sign = 1
        while self._next() in ("+", "-"):
            sign *= -1 if self._next() == "-" else 1
            self._position += 1
        return sign * self._power()

    def _power(self) -> Fraction:
        value = self._atom()
        while self._take("!"):
            if self._next() == "!" or value.denominator != 1 or not 0 <= value <= _LARGEST_FACTORIAL:
                raise _NotANumberError
            value = Fraction(math.factorial(int(value)))
        if self._take("^"):
            exponent = self._braced()
            if exponent.denominator != 1 or (value == 0 and exponent <= 0):
                raise _NotANumberError
            size = max(abs(value.numerator), value.denominator)
            if abs(exponent) * size.bit_length() > 4 * _LONGEST:
                raise _NotANumberError
            value = value ** int(exponent)
        return value

    def _braced(self) -> Fraction:
        if not self._take("{"):
            raise _NotANumberError
        value = self._sum()
        if not self._take("}"):
            raise _NotANumberError
        return value

    def _atom(self) -> Fraction:
        if self._kind() == "number":
            return self._written()
        if self._take("("):
            value = self._sum()
            if not self._take(")"):
                raise _NotANumberError
            return value
        if self._take(r"\frac"):
            top = self._braced()
            return top / self._braced()
        if self._take(r"\binom"):
            top, bottom = self._braced(), self._braced()
            if top.denominator != 1 or bottom.denominator != 1 or not 0 <= bottom <= top <= _LARGEST_FACTORIAL:
                raise _NotANumberError
            return Fraction(math.comb(int(top), int(bottom)))
        raise _NotANumberError

    def _written(self) -> Fraction:
        """A literal, and what may stick to it: a repeating end, the fraction of a mixed number."""
        text = self._next()
        exponent = text.lower().partition("e")[2]
        if exponent and abs(int(exponent)) > _LONGEST:
            raise _NotANumberError
        self._position += 1
        value = Fraction(text)
        if self._next() == r"\frac" and text.isdigit() and self._digits_only(self._position + 1):
            self._position += 1
            top = self._braced()
            return value + top / self._braced()
        ahead = [token.value for token in self._tokens[self._position : self._position + 3]]
        spaced = self._position < len(self._tokens) and self._tokens[self._position].spaced
        if (
            text.isdigit()
            and len(ahead) == 3
            and ahead[1] == "/"
            and spaced
            and ahead[0].isdigit()
            and ahead[2].isdigit()
        ):
            self._position += 3
            return value + Fraction(int(ahead[0]), int(ahead[2]))
        return value

    def _digits_only(self, position: int) -> bool:
        values = [token.value for token in self._tokens[position : position + 6]]
        return len(values) == 6 and values[0] == values[3] == "{" and values[1].isdigit() and values[4].isdigit()


def _checked(value: Fraction) -> Fraction:
    if max(abs(value.numerator), value.denominator).bit_length() > 4 * _LONGEST:
        raise _NotANumberError
    return value
