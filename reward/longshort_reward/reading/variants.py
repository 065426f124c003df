r"""Plus-minus signs written out, and degrees in trigonometry as radians."""

from collections.abc import Sequence
from itertools import product

from longshort_reward.reading.tokens import Token

_MOST = 3
_TRIGONOMETRIC = frozenset("\\" + name for name in ["sin", "cos", "tan", "cot", "sec", "csc"])
_PI = Token("command", r"\pi")


def variants(tokens: Sequence[Token]) -> list[list[Token]]:
    r"""The readings of an answer with `\pm`: one if there is none.

    The signs change together if there is a `\mp` among them, otherwise each on its own.
    """
    places = [index for index, token in enumerate(tokens) if token.value in (r"\pm", r"\mp")]
    if not places or len(places) > _MOST:
        return [list(tokens)]
    if any(tokens[index].value == r"\mp" for index in places):
        upper = [tokens[index].value == r"\pm" for index in places]
        choices = [tuple(upper), tuple(not sign for sign in upper)]
    else:
        choices = [tuple(signs) for signs in product((True, False), repeat=len(places))]
    return [_with_signs(tokens, dict(zip(places, signs, strict=True))) for signs in choices]


def _with_signs(tokens: Sequence[Token], signs: dict[int, bool]) -> list[Token]:
    out: list[Token] = []
    for index, token in enumerate(tokens):
        if index not in signs:
            out.append(token)
        elif not signs[index]:
            out.append(Token("sign", "-", token.spaced))
        elif out and out[-1].value not in ("(", "{", "[", ",", "=", r"\{", "<", ">"):
            out.append(Token("sign", "+", token.spaced))
    return out


def in_radians(tokens: Sequence[Token]) -> list[Token]:
    """The tokens without degree signs inside an expression: `x^\\circ` is `x`, and as the argument of a sine, radians.

    A degree sign at the end of an answer without trigonometry is its unit and stays.
    """
    trigonometric = next((i for i, token in enumerate(tokens) if token.value in _TRIGONOMETRIC), None)
    places = [i for i, token in enumerate(tokens) if token.value == "°"]
    last = len(tokens) - (2 if tokens[-1].value in ("C", "F", "K") else 1)
    alone = places == [last] and not any(token.value in ("+", "-") for token in tokens[1:])
    if not places or (trigonometric is None and alone):
        return list(tokens)
    if any(token.kind == "text" or token.value == "'" for token in tokens):
        return list(tokens)
    out: list[Token] = []
    for index, token in enumerate(tokens):
        if token.value != "°":
            out.append(token)
        elif trigonometric is not None and index > trigonometric:
            start = _operand(out)
            turned = [Token("sign", "("), Token("command", r"\frac"), Token("sign", "{"), *out[start:], _PI]
            turned += [
                Token("sign", "}"),
                Token("sign", "{"),
                Token("number", "180"),
                Token("sign", "}"),
                Token("sign", ")"),
            ]
            out[start:] = turned
    return out


def _operand(tokens: list[Token]) -> int:
    """Where the operand of a degree sign begins."""
    if not tokens or tokens[-1].value not in (")", "}"):
        return max(len(tokens) - 1, 0)
    depth = 0
    for index in range(len(tokens) - 1, -1, -1):
        depth += (tokens[index].value in (")", "}")) - (tokens[index].value in ("(", "{"))
        if depth == 0 and not (tokens[index].value == "{" and index and tokens[index - 1].value in ("}",)):
            return index - 1 if index and tokens[index - 1].value == r"\frac" else index
    return 0
