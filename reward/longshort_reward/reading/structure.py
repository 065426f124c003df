"""Brackets, separators and names in a row of tokens, and whether it is well-formed."""

from collections.abc import Sequence
from itertools import pairwise

from longshort_reward.reading.tokens import Token, latex

OPENING, CLOSING = frozenset({"(", "[", "{", r"\{"}), frozenset({")", "]", "}", r"\}"})


RELATIONS = frozenset(
    {"=", "<", ">", r"\le", r"\ge", r"\neq", r"\approx", r"\equiv", r"\cong", r"\sim", r"\to", r"\in"}
)


_OPERATORS = frozenset({"+", "-", "*", "/", "^", "_", r"\cdot", r"\times", r"\div", "=", "<", ">", r"\le", r"\ge"})


_STRAY = frozenset({"?", "#", "@", "&", "|", '"', r"\sim", r"\lnot", r"\neg", "~"})


def top_level(tokens: Sequence[Token]) -> list[int]:
    """The places outside all brackets."""
    places, depth = [], 0
    for index, token in enumerate(tokens):
        if (token.value in CLOSING or token.value.startswith(r"\end{")) and token.kind != "text":
            depth -= 1
        if depth == 0:
            places.append(index)
        if (token.value in OPENING or token.value.startswith(r"\begin{")) and token.kind != "text":
            depth += 1
    return places


def well_formed(tokens: Sequence[Token]) -> bool:
    """Whether brackets close, operators have what they join, and no sign is left over."""
    depth = 0
    for token in tokens:
        depth += (token.value in ("(", "[", r"\{")) - (token.value in (")", "]", r"\}"))
    if depth != 0 and [token.value for token in tokens if token.value in "[]"] not in (
        ["[", "["],
        ["]", "["],
        ["]", "]"],
    ):
        return False
    if (
        not tokens
        or tokens[-1].value in _OPERATORS
        or tokens[0].value in ("*", "/", "^", "_", r"\cdot", r"\times", "!", ".")
    ):
        return False
    environment = any(token.value.startswith(r"\begin{") for token in tokens)
    stray = sum(token.value in _STRAY and not (environment and token.value == "&") for token in tokens)
    bars = sum(token.value == "|" for token in tokens)
    dots = any(a.value == b.value == "." for a, b in pairwise(tokens))
    empty = any(a.value == "{" and b.value == "}" for a, b in pairwise(tokens))
    paired = bars % 2 == 0 or tokens[0].value == r"\{"  # `\{x | x > 2\}`
    return stray == bars and paired and not dots and not empty and not _loose_number(tokens)


def _loose_number(tokens: Sequence[Token]) -> bool:
    """Two numbers side by side that are no mixed number."""
    for index in range(len(tokens) - 1):
        if tokens[index].kind == tokens[index + 1].kind == "number":
            mixed = index + 2 < len(tokens) and tokens[index + 2].value == "/" and tokens[index + 1].spaced
            if not mixed:
                return True
    return False


def cut(tokens: Sequence[Token], places: Sequence[int]) -> list[list[Token]]:
    parts, start = [], 0
    for place in (*places, len(tokens)):
        parts.append(list(tokens[start:place]))
        start = place + 1
    return parts


def end_of_bracket(tokens: list[Token]) -> int:
    depth = 0
    for index, token in enumerate(tokens):
        depth += (token.value in ("(", "[", r"\{", "{")) - (token.value in (")", "]", r"\}", "}"))
        if depth == 0:
            return index
    return -1


def is_name(tokens: Sequence[Token]) -> bool:
    """Whether the tokens name something: `x`, `a_n`, `f(x)`, `f^{-1}(x)`, `\\frac{dy}{dx}`, `m\\angle ABC`."""
    if not tokens or tokens[0].kind not in ("letter", "command", "text"):
        return False
    values = latex(tokens).replace(" ", "")
    if values in (r"\frac{dy}{dx}", r"\frac{d}{dx}f(x)") or tokens[0].value in (
        r"\angle",
        r"\triangle",
        r"\min",
        r"\max",
    ):
        return True
    position = 1
    if tokens[0].value in (r"\hat", r"\vec", r"\overline", r"\mathbb", r"\mathcal", r"\overrightarrow"):
        position = _group_end(tokens, 1)
    elif tokens[0].kind == "command" and tokens[0].value in (
        r"\frac",
        r"\sqrt",
        r"\log",
        r"\sin",
        r"\cos",
        r"\tan",
        r"\ln",
    ):
        return False
    while position < len(tokens) and tokens[position].value in ("_", "^", "'"):
        script = tokens[position].value
        end = position + 1 if script == "'" else _group_end(tokens, position + 1)
        exponent = latex(tokens[position + 2 : end - 1])
        if script == "^" and exponent not in ("-1", "*", "+", "-") and not exponent.startswith(r"\prime"):
            return False
        position = end
    if position < len(tokens) and tokens[position].value == "(":
        return end_of_bracket(list(tokens[position:])) == len(tokens) - position - 1
    return position >= len(tokens) or (
        all(token.kind == "letter" for token in tokens[position:]) and tokens[0].value.isupper()
    )


def _group_end(tokens: Sequence[Token], position: int) -> int:
    end = end_of_bracket(list(tokens[position : position + 200]))
    return len(tokens) if end < 0 else position + end + 1
