"""Units of measurement, currencies, counted things and scale words, and how they compare.

A unit is a factor and powers of base units, so `km/h`, `kilometers per hour` and `1000 m/h` are one, and `mL` is not
`L`. What is counted (`12 apples`) is a unit of its own: its words.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from longshort_reward.reading.vocabulary import words as listed

Powers = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """What an amount counts."""

    factor: Fraction
    """How many base units one of it is."""
    powers: Powers
    """The base units and their powers, in order."""
    words: frozenset[str] = frozenset()
    """The words of a thing that is counted."""

    def times(self, other: "Unit", power: int = 1) -> "Unit":
        """The product with `other` to a power."""
        powers = dict(self.powers)
        for base, count in other.powers:
            powers[base] = powers.get(base, 0) + count * power
        kept = tuple(sorted((base, count) for base, count in powers.items() if count))
        return Unit(self.factor * other.factor**power, kept, self.words | other.words)


ONE = Unit(Fraction(1), ())
_PREFIXES = {"p": -12, "n": -9, "u": -6, "m": -3, "c": -2, "d": -1, "k": 3, "M": 6, "G": 9, "T": 12}
_LONG_PREFIXES = {"pico": -12, "nano": -9, "micro": -6, "milli": -3, "centi": -2, "deci": -1, "kilo": 3, "mega": 6}
_LONG_PREFIXES |= {"giga": 9, "tera": 12, "hecto": 2, "deca": 1}
_KILO, _MILLI = Fraction(1000), Fraction(1, 1000)
_NEWTON: Powers = (("g", 1), ("m", 1), ("s", -2))
_JOULE: Powers = (("g", 1), ("m", 2), ("s", -2))
_SYMBOLS: dict[str, tuple[Fraction, Powers]] = {
    "m": (Fraction(1), (("m", 1),)),
    "g": (Fraction(1), (("g", 1),)),
    "s": (Fraction(1), (("s", 1),)),
    "L": (_MILLI, (("m", 3),)),
    "l": (_MILLI, (("m", 3),)),
    "N": (_KILO, _NEWTON),
    "J": (_KILO, _JOULE),
    "W": (_KILO, (("g", 1), ("m", 2), ("s", -3))),
    "Pa": (_KILO, (("g", 1), ("m", -1), ("s", -2))),
    "Hz": (Fraction(1), (("s", -1),)),
    "V": (_KILO, (("A", -1), ("g", 1), ("m", 2), ("s", -3))),
    "A": (Fraction(1), (("A", 1),)),
    "C": (Fraction(1), (("A", 1), ("s", 1))),
    "F": (Fraction(1), (("farad", 1),)),
    "T": (Fraction(1), (("tesla", 1),)),
    "K": (Fraction(1), (("K", 1),)),
    "mol": (Fraction(1), (("mol", 1),)),
    "eV": (Fraction(1), (("eV", 1),)),
    "cal": (Fraction(1), (("cal", 1),)),
    "B": (Fraction(1), (("byte", 1),)),
    "bit": (Fraction(1), (("bit", 1),)),
    "Wh": (3600 * _KILO, _JOULE),
    "Ω": (Fraction(1), (("ohm", 1),)),
}
_LONG = {
    **{"meter": "m", "metre": "m", "gram": "g", "gramme": "g", "second": "s", "liter": "L", "litre": "L"},
    **{"newton": "N", "joule": "J", "watt": "W", "pascal": "Pa", "hertz": "Hz", "volt": "V", "ampere": "A", "amp": "A"},
    **{"coulomb": "C", "farad": "F", "tesla": "T", "kelvin": "K", "mole": "mol", "calorie": "cal", "byte": "B"},
    **{"ohm": "Ω", "electronvolt": "eV"},
}
# name: factor, the unit it is that many of
_OTHERS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("min", "minute"), ("60", "s")),
    **dict.fromkeys(("h", "hr", "hour"), ("3600", "s")),
    **dict.fromkeys(("sec",), ("1", "s")),
    "day": ("86400", "s"),
    "week": ("604800", "s"),
    **dict.fromkeys(("inch", "in", "inche"), ("0.0254", "m")),
    **dict.fromkeys(("ft", "foot", "feet"), ("0.3048", "m")),
    **dict.fromkeys(("yd", "yard"), ("0.9144", "m")),
    **dict.fromkeys(("mi", "mile"), ("1609.344", "m")),
    **dict.fromkeys(("lb", "pound"), ("453.59237", "g")),
    **dict.fromkeys(("oz", "ounce"), ("28.349523125", "g")),
    **dict.fromkeys(("ton", "tonne"), ("1000000", "g")),
    **{"gm": ("1", "g"), "cc": ("0.000001", "m3"), "hectare": ("10000", "m2"), "ha": ("10000", "m2")},
}
_SINGLE = {
    **dict.fromkeys(("month", "mo"), ("month", "1")),
    **dict.fromkeys(("year", "yr"), ("month", "12")),
    **dict.fromkeys(("decade",), ("month", "120")),
    **dict.fromkeys(("century", "centurie"), ("month", "1200")),
    **dict.fromkeys(("gallon", "gal"), ("gallon", "1")),
    **dict.fromkeys(("quart", "qt"), ("gallon", "1/4")),
    **dict.fromkeys(("pint", "pt"), ("gallon", "1/8")),
    **dict.fromkeys(("cup",), ("gallon", "1/16")),
    **dict.fromkeys(("acre",), ("acre", "1")),
    **dict.fromkeys(("°", "degree", "deg"), ("degree", "1")),
    **dict.fromkeys(("radian", "rad"), ("radian", "1")),
    **dict.fromkeys(("revolution", "rev"), ("revolution", "1")),
    **dict.fromkeys(("atm",), ("atm", "1")),
    **dict.fromkeys(("unit",), ("unit", "1")),
    **dict.fromkeys(("$", "dollar", "USD", "usd", "buck"), ("dollar", "1")),
    **dict.fromkeys(("cent", "¢"), ("dollar", "1/100")),
    **dict.fromkeys(("€", "euro", "EUR", "eur"), ("euro", "1")),
    **dict.fromkeys(("£", "GBP", "gbp", "quid"), ("sterling", "1")),
    **dict.fromkeys(("₹", "Rs", "rupee", "INR"), ("rupee", "1")),
    **dict.fromkeys(("¥",), ("¥", "1")),
    **dict.fromkeys(("yen", "JPY", "円"), ("yen", "1")),
    **dict.fromkeys(("yuan", "RMB", "CNY", "元", "人民币"), ("yuan", "1")),
    **dict.fromkeys(("₩", "won"), ("won", "1")),
    **dict.fromkeys(("₽", "rub", "ruble", "rouble", "руб"), ("rouble", "1")),
    "dozen": ("dozen", "1"),
    "%": ("percent", "1"),
}
_SPEEDS = {"mph": ("mi", "h"), "kmh": ("km", "h"), "kph": ("km", "h"), "mps": ("m", "s"), "fps": ("ft", "s")}
_ABROAD = {
    **{"厘米": "cm", "毫米": "mm", "分米": "dm", "米": "m", "千米": "km", "公里": "km", "克": "g", "千克": "kg"},
    **{
        "公斤": "kg",
        "吨": "ton",
        "升": "L",
        "毫升": "mL",
        "秒": "s",
        "分": "min",
        "分钟": "min",
        "小时": "h",
        "时": "h",
    },
    **{"天": "day", "日": "day", "周": "week", "星期": "week", "月": "month", "个月": "month", "年": "year", "度": "°"},
    **{"岁": "year", "美元": "$", "欧元": "€", "英镑": "£", "日元": "yen", "卢比": "₹"},
    **{
        "см": "cm",
        "мм": "mm",
        "м": "m",
        "км": "km",
        "кг": "kg",
        "г": "g",
        "л": "L",
        "мл": "mL",
        "ч": "h",
        "мин": "min",
    },
}
_PLURALS = frozenset({"hr", "lb", "yd", "yr", "kg", "cm", "km", "mo"})
"""Symbols of two letters that are written with an s: `5 hrs`."""
SCALES = {
    **{"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "mn": 10**6},
    **{"mln": 10**6, "bn": 10**9, "lakh": 10**5, "crore": 10**7, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4},
    **{"亿": 10**8, "億": 10**8, "兆": 10**12, "百万": 10**6, "千万": 10**7, "万亿": 10**12},
}
ALTERING = listed(
    "squared cubed factorial hundreds thousands millions billions trillions ten tens half halves third thirds quarter "
    "fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth "
    "hundredths thousandth thousandths millionth millionths or and not no nor minus plus less more than least most "
    "divided over power root inverse reciprocal negative double twice triple remainder mod modulo base if unless "
    "except to out of from by but rest choose permute score gross quarters when while then is are am pm percent "
    "below above under between through until fewer greater smaller larger 倍半 半 十 余"
) | frozenset(SCALES)
"""Words that alter the number before them, so that they are no unit."""


def _powers_of(name: str) -> tuple[Fraction, Powers]:
    if name in ("m2", "m3"):
        return Fraction(1), (("m", int(name[1])),)
    return _SYMBOLS[name]


@lru_cache(maxsize=1)
def _table() -> dict[str, Unit]:
    table: dict[str, Unit] = {}
    for symbol, (factor, powers) in _SYMBOLS.items():
        for prefix, exponent in {"": 0, **_PREFIXES}.items():
            table[prefix + symbol] = Unit(factor * Fraction(10) ** exponent, powers)
    for name, symbol in _LONG.items():
        factor, powers = _SYMBOLS[symbol]
        for prefix, exponent in {"": 0, **_LONG_PREFIXES}.items():
            table[prefix + name] = Unit(factor * Fraction(10) ** exponent, powers)
    for name, (count, symbol) in _OTHERS.items():
        factor, powers = _powers_of(symbol)
        table[name] = Unit(Fraction(count) * factor, powers)
    for name, (base, count) in _SINGLE.items():
        table[name] = Unit(Fraction(count), ((base, 1),))
    for name, (top, bottom) in _SPEEDS.items():
        table[name] = table[top].times(table[bottom], -1)
    table["rpm"] = table["rev"].times(table["min"], -1)
    table |= {name: table[other] for name, other in _ABROAD.items()}
    # Millitesla and the like come from the prefixes; these are words or other units first.
    for name in ("cd", "dB", "pt", "pK"):
        table.pop(name, None)
    table["pt"] = Unit(Fraction(1, 8), (("gallon", 1),))
    return table


@lru_cache(maxsize=4096)
def known_unit(word: str) -> Unit | None:
    """The unit of a word or symbol, in the singular or the plural."""
    table = _table()
    for name in (word, word.lower() if len(word) > 1 else word):
        if name in table:
            return table[name]
        for ending in ("s", "es", "."):
            stem = name.removesuffix(ending)
            if (
                stem != name
                and (len(stem) > 2 or stem in ("hr", "lb", "yd", "yr", "kg", "cm", "km", "mo"))
                and stem in table
            ):
                return table[stem]
    return None


def is_unit_word(word: str) -> bool:
    """Whether a word is a unit or a scale word that is known."""
    return (
        known_unit(word) is not None or word.lower() in SCALES or word in ("sq", "cu", "square", "cubic", "per", "pct")
    )


def thing(words: list[str]) -> Unit:
    """The unit of a thing that is counted."""
    return Unit(Fraction(1), (("thing", 1),), frozenset(map(singular, words)))


def singular(word: str) -> str:
    """A word without the ending of its plural, as far as that can be told."""
    word = word.casefold()
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def ratio(a: Unit, b: Unit) -> Fraction | None:
    """How many `b` one `a` is; None when they measure different things."""
    if a.powers != b.powers or not (a.words <= b.words or b.words <= a.words) or bool(a.words) != bool(b.words):
        return None
    return a.factor / b.factor
