r"""Reads the unit behind a number: `cm`, `\text{ square meters}`, `km/h`, `m\,s^{-1}`, `million dollars`, `个`."""

from collections.abc import Sequence
from fractions import Fraction

from longshort_reward.reading.tokens import Token
from longshort_reward.reading.units import ALTERING, ONE, SCALES, Unit, known_unit, thing

_MOST_WORDS = 8
_MOST_TOKENS = 32
CURRENCIES = frozenset("$€£¥₹₩₽")
PERCENT = known_unit("%") or ONE
_DEGREE, _FOOT, _INCH = known_unit("°") or ONE, known_unit("ft") or ONE, known_unit("in") or ONE
_PERCENT_WORDS = frozenset({"percent", "percentage", "pct", "percents"})
_POWERS_BEFORE = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWERS_BEHIND = {"squared": 2, "cubed": 3}
_FOREIGN_POWERS = {"平方": 2, "立方": 3}
_FOREIGN_JOINTS = frozenset("和或比至到除乘减加分之")
_SMALL_WORDS = frozenset({"the", "a", "an", "of"})
_TEMPERATURES = {"C": "C", "F": "F", "K": "K", "Celsius": "C", "celsius": "C", "Fahrenheit": "F", "fahrenheit": "F"}


class UnitReader:
    """Reads one unit from `start` on. `end` is `start` if there is none that is understood."""

    def __init__(self, tokens: Sequence[Token], start: int, unit: Unit | None = None) -> None:
        """With `unit`, one that stood in front of the number."""
        self.unit = unit
        self.scale = 1
        """The scale words in front of the unit, as a factor."""
        self._tokens = tokens
        self._position = start
        self._words: list[str] = []
        self._direction, self._power = 1, 1
        self._last: Unit | None = None
        self._only_scales = True
        understood = True
        while (
            understood and self._position < len(tokens) and self._position - start < _MOST_TOKENS and not self._ends()
        ):
            understood = self._step()
        understood = understood and self._count_things()
        self.end = self._position if understood else start
        if not understood:
            self.unit, self.scale = unit, 1

    def _ends(self) -> bool:
        token = self._tokens[self._position]
        if token.kind == "text":
            return token.value.casefold() == "and"
        joins = token.value in (r"\cdot", r"\times", "*", "-") and self.unit is not None
        joins = (joins or token.value == ".") and self._text_follows()
        return not joins and token.value != "/" and self._sign() is None

    def _text_follows(self) -> bool:
        return self._position + 1 < len(self._tokens) and self._tokens[self._position + 1].kind == "text"

    def _step(self) -> bool:
        """Take one token or two; False if they alter the number or are not understood."""
        token = self._tokens[self._position]
        word = token.value.casefold()
        if (sign := self._sign()) is not None:
            found, self._position = sign
            return self._multiply(found)
        self._position += 1
        if word == "per" and self._value() == "cent":
            self._position += 1
            return self._multiply(PERCENT)
        if token.value == "/" or word in ("per", "每"):
            self._direction = -1
            return self._position < len(self._tokens)
        if token.kind != "text":
            return True
        if word in _PERCENT_WORDS:
            if self._value() in ("points", "point"):
                self._position += 1
            return self._multiply(PERCENT)
        if word in SCALES and self._only_scales:
            self.scale *= SCALES[word]
            return True
        self._only_scales = False
        if word in _POWERS_BEFORE:
            self._power = _POWERS_BEFORE[word]
            return True
        if word in _POWERS_BEHIND:
            return self._raise_last(_POWERS_BEHIND[word])
        if not self._words and (known := known_unit(token.value)) is not None:
            return self._multiply(known)
        if not word.isascii():
            return self._foreign(token.value)
        if word in ALTERING:
            return False
        if word not in _SMALL_WORDS or self._words:
            self._words.append(word)
        return True

    def _value(self) -> str:
        return self._tokens[self._position].value if self._position < len(self._tokens) else ""

    def _multiply(self, found: Unit) -> bool:
        self._only_scales = False
        exponent = self._exponent() * self._power * self._direction
        self.unit = (self.unit or ONE).times(found, exponent)
        self._last, self._power = found, 1
        return True

    def _raise_last(self, power: int) -> bool:
        if self._last is None:
            return False
        self.unit = (self.unit or ONE).times(self._last, self._direction * (power - 1))
        return True

    def _exponent(self) -> int:
        values = [token.value for token in self._tokens[self._position : self._position + 5]]
        if values[:2] != ["^", "{"] or "}" not in values:
            return 1
        end = values.index("}")
        digits = "".join(values[2:end])
        if not digits.removeprefix("-").isdigit() or len(digits) > 2:
            return 1
        self._position += end + 1
        return int(digits)

    def _foreign(self, word: str) -> bool:
        """Scripts without spaces: scale, power and unit in one word."""
        while word:
            if (known := known_unit(word)) is not None:
                return self._multiply(known)
            power = _FOREIGN_POWERS.get(word[:2])
            if power is not None and (known := known_unit(word[2:])) is not None:
                self._power = power
                return self._multiply(known)
            if word[0] not in SCALES:
                self._words.append(word)
                return not any(letter in ALTERING or letter in _FOREIGN_JOINTS for letter in word)
            self.scale *= SCALES[word[0]]
            word = word[1:]
        return True

    def _count_things(self) -> bool:
        """Make the words that are no unit the thing that is counted; behind a unit they only say more about it."""
        if any(word in ALTERING for word in self._words) or len(self._words) > _MOST_WORDS:
            return False
        if self._words and (self.unit is None or self._direction < 0):
            self.unit = (self.unit or ONE).times(thing(self._words), self._direction)
        return True

    def _sign(self) -> tuple[Unit, int] | None:
        """`%`, `°`, `°C`, `$`, feet and inches, micro and ohm; and where it ends."""
        position = self._position
        value = self._tokens[position].value
        after = self._tokens[position + 1].value if position + 1 < len(self._tokens) else ""
        if value == "°":
            scale = _TEMPERATURES.get(after)
            return (_DEGREE, position + 1) if scale is None else (Unit(Fraction(1), ((f"°{scale}", 1),)), position + 2)
        if value in ("'", '"'):
            double = value == '"' or after == "'"
            end = position + (2 if after == "'" and value == "'" else 1)
            if any(token.value == "°" for token in self._tokens[:position]):
                return Unit(Fraction(1, 3600 if double else 60), _DEGREE.powers), end
            return (_INCH if double else _FOOT), end
        if value == r"\mu" and (unit := known_unit("u" + after)) is not None:
            return unit, position + 2
        if value in ("k", "M", "m") and after == r"\Omega" and (unit := known_unit(value + "Ω")) is not None:
            return unit, position + 2
        if value == r"\Omega":
            return known_unit("Ω") or ONE, position + 1
        if value in CURRENCIES or value in ("%", "¢"):
            return known_unit(value) or ONE, position + 1
        return None
