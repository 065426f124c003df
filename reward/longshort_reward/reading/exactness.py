"""Whether two results of the computer algebra system really are the same number.

math-verify rounds before it compares, so it takes 10^-31 for 10^-30 and a coefficient for its neighbour. Here both
sides are evaluated to sixty digits, variables at a few odd places.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import sympy
from sympy.core.relational import Relational

from longshort_reward.reading.rationals import Number, equal_numbers

_DIGITS = 60
_CLOSE, _NEAR = sympy.Float("1e-45"), sympy.Float("1e-5")

_PLACES = tuple(sympy.Rational(*place) for place in ((17, 7), (-23, 9), (5, 13), (-4, 11), (41, 3), (-37, 5)))
_CANNOT = (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError, RecursionError)


def differ(a: Any, b: Any, *, places: Sequence[int]) -> bool:
    """Whether two sympy objects that were found equal differ after all; False where it cannot be told.

    Args:
        places: for each decimal written in the two answers its digits behind the point; empty when there is none.
    """
    if isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr):
        return _differ(a, b, places)
    if isinstance(a, Relational) and isinstance(b, Relational):
        sides = (a.lhs, a.rhs, b.lhs, b.rhs)
        return (
            not places
            and all(isinstance(side, sympy.Expr) for side in sides)
            and _nearly_proportional(a.lhs - a.rhs, b.lhs - b.rhs)
        )
    if isinstance(a, sympy.FiniteSet) and isinstance(b, sympy.FiniteSet):
        return any(all(differ(x, y, places=places) for y in b.args) for x in a.args)
    if isinstance(a, sympy.MatrixBase) and isinstance(b, sympy.MatrixBase):
        pairs = list(zip(list(a), list(b), strict=False))
    elif isinstance(a, (sympy.Tuple, sympy.Interval)) and type(a) is type(b):
        pairs = list(zip(a.args, b.args, strict=False))
    else:
        return False
    return any(differ(x, y, places=places) for x, y in pairs)


def identical(a: Any, b: Any) -> bool:
    r"""Whether two expressions that were not found equal agree at several places, to sixty digits.

    Where both are no real number they may differ: `\sqrt{1/n}` and `1/\sqrt n` are roots of a negative number there.
    """
    if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)):
        return False
    names = _names(a, b)
    equal = 0
    try:
        for place in _PLACES if names else _PLACES[:1]:
            values = _values(a, b, place)
            x, y = (sympy.N(side.subs(values).doit(), _DIGITS, maxn=400) for side in (a, b))
            if not (x.is_number and y.is_number and x.is_finite and y.is_finite):
                continue
            if bool(abs(x - y) <= max(abs(x), abs(y)) * _CLOSE):
                equal += 1
            elif x.is_real or y.is_real:
                return False
    except _CANNOT:
        return False
    return equal >= (3 if names else 1)


def _names(a: sympy.Expr, b: sympy.Expr) -> list[str]:
    # math-verify may give symbols of one name different assumptions.
    return sorted({str(symbol) for symbol in a.free_symbols | b.free_symbols} - {"i"})


def _values(a: sympy.Expr, b: sympy.Expr, place: sympy.Rational) -> dict[Any, Any]:
    values = {name: place * sympy.Rational(7 + 4 * index, 7) for index, name in enumerate(_names(a, b))}
    return {symbol: values.get(str(symbol), sympy.I) for symbol in a.free_symbols | b.free_symbols}


def _differ(a: sympy.Expr, b: sympy.Expr, places: Sequence[int]) -> bool:
    values = _values(a, b, _PLACES[0])
    try:
        a, b = a.subs(values).doit(), b.subs(values).doit()
        if a.is_Rational and b.is_Rational and not places:
            return bool(a != b)
        left, right = (sympy.N(value, _DIGITS, maxn=400) for value in (a, b))
        if not all(value.is_number and value.is_finite for value in (left, right)):
            return False
        size = max(abs(left), abs(right))
        # of the digits, not `a - b`: to find that 0 to sixty digits, sympy would look at four hundred of each
        if bool(abs(left - right) <= size * _CLOSE):
            return False
        return not (places and _rounded(left, right, min(places)))
    except _CANNOT:
        return False


def _nearly_proportional(a: sympy.Expr, b: sympy.Expr) -> bool:
    """Whether one side is nearly, and not exactly, the same multiple of the other everywhere: rounded away."""
    ratios = []
    try:
        for place in _PLACES[:3]:
            x, y = (sympy.N(side.subs(_values(a, b, place)).doit(), _DIGITS, maxn=400) for side in (a, b))
            if not (x.is_finite and y.is_finite) or y == 0 or x == 0:
                return False
            ratios.append(x / y)
        return any(bool(_CLOSE < abs(ratio / ratios[0] - 1) < _NEAR) for ratio in ratios[1:])
    except _CANNOT:
        return False


def _rounded(a: sympy.Expr, b: sympy.Expr, places: int) -> bool:
    """As `equal_numbers` has it for a decimal with so many digits."""
    for left, right in ((sympy.re(a), sympy.re(b)), (sympy.im(a), sympy.im(b))):
        x, y = (_fraction(value) for value in (left, right))
        noise = abs(x - y) * 10**12 <= max(abs(x), abs(y))
        if not noise and not equal_numbers(Number(x, places), Number(y)):
            return False
    return True


def _fraction(value: sympy.Expr) -> Fraction:
    exact = sympy.Rational(str(value))
    return Fraction(int(exact.p), int(exact.q))
