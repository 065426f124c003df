r"""Puts every argument into braces and takes away the braces that only group (`\frac\pi2`, `{5}`)."""

from collections.abc import Sequence
from dataclasses import replace

from longshort_reward.reading.tokens import Token, UnreadableError
from longshort_reward.reading.vocabulary import ARGUMENTS

_DEEPEST = 80


def arranged(tokens: Sequence[Token]) -> list[Token]:
    arranger = _Arranger(tokens)
    arranged, rest = arranger.until(0, None, 0)
    if rest != len(tokens):
        raise UnreadableError("a brace closes that never opened")
    return arranged


_OPEN, _CLOSE = Token("sign", "{"), Token("sign", "}")


class _Arranger:
    """Puts every argument into braces and takes away the other braces."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = list(tokens)

    def until(self, position: int, closing: str | None, depth: int) -> tuple[list[Token], int]:
        """What stands before the next `closing` of this level, arranged, and where the reading ended."""
        if depth > _DEEPEST:
            raise UnreadableError("nested too deeply")
        out: list[Token] = []
        while position < len(self._tokens):
            token = self._tokens[position]
            if token.value == "}" and token.kind == "sign":
                if closing != "}":
                    raise UnreadableError("a brace closes that never opened")
                return _without_over(out), position + 1
            if token.value == closing == "]":
                return out, position + 1
            position = self._one(token, position, out, depth)
        if closing is not None:
            raise UnreadableError("a brace is never closed")
        return _without_over(out), position

    def _one(self, token: Token, position: int, out: list[Token], depth: int) -> int:
        if token == replace(_OPEN, spaced=token.spaced):
            inner, position = self.until(position + 1, "}", depth + 1)
            _append_group(out, token, inner)
            return position
        if token.value in ("^", "_") and token.kind == "sign":
            log = bool(out) and out[-1].value == r"\log"
            argument, position = self._argument(position + 1, depth, digits=log and token.value == "_")
            _append_script(out, token, argument)
            return position
        count = ARGUMENTS.get(token.value, 0) if token.kind == "command" else 0
        position += 1
        out.append(token)
        if token.value == r"\sqrt" and self._is(position, "["):
            index, position = self.until(position + 1, "]", depth + 1)
            out += [Token("sign", "["), *index, Token("sign", "]")]
        for _ in range(count):
            argument, position = self._argument(position, depth, digits=token.value in (r"\frac", r"\binom"))
            out += [_OPEN, *argument, _CLOSE]
        return position

    def _is(self, position: int, value: str) -> bool:
        return position < len(self._tokens) and self._tokens[position].value == value

    def _argument(self, position: int, depth: int, *, digits: bool) -> tuple[list[Token], int]:
        if position >= len(self._tokens) or depth > _DEEPEST:
            raise UnreadableError("an argument is missing")
        token = self._tokens[position]
        if token.value == "{" and token.kind == "sign":
            return self.until(position + 1, "}", depth + 1)
        if token.kind == "number" and digits and len(token.value) > 1 and token.value.isdigit():
            self._tokens[position] = Token("number", token.value[1:])
            return [Token("number", token.value[0])], position
        if token.value == "(" and (self._is(position - 1, r"\sqrt") or self._is(position - 1, "^")):
            # A calculator's sqrt(3) and x^(1/2).
            inner, end = self._round(position, depth)
            return inner, end
        out: list[Token] = []
        if token.value in ("-", "+"):
            out.append(token)
            position += 1
            if position >= len(self._tokens):
                raise UnreadableError("an argument is missing")
            token = self._tokens[position]
        if token.value in ("}", "^", "_"):
            raise UnreadableError("an argument is missing")
        return out, self._one(token, position, out, depth + 1)

    def _round(self, position: int, depth: int) -> tuple[list[Token], int]:
        out: list[Token] = []
        level = 0
        while position < len(self._tokens):
            token = self._tokens[position]
            level += {"(": 1, ")": -1}.get(token.value, 0)
            if level == 0:
                return out[1:], position + 1
            if token.value == "}":
                break
            position = self._one(token, position, out, depth + 1)
        raise UnreadableError("a bracket is never closed")


def _append_group(out: list[Token], opening: Token, inner: list[Token]) -> None:
    if [token.value for token in inner] == [","]:
        # `9{,}500`: the comma belongs to the number.
        out.append(Token("sign", "{,}"))
        return
    if inner:
        out.append(replace(inner[0], spaced=inner[0].spaced or opening.spaced))
        out += inner[1:]


def _append_script(out: list[Token], sign: Token, argument: list[Token]) -> None:
    values = "".join(token.value for token in argument)
    if sign.value == "^" and values in (r"\circ", "o", "°"):
        out.append(Token("sign", "°", sign.spaced))
    elif sign.value == "^" and set(values) == {"'"}:
        out += argument
    elif sign.value == "^" and values in ("st", "nd", "rd", "th") and out and out[-1].kind == "number":
        pass
    else:
        out += [sign, _OPEN, *argument, _CLOSE]


def _without_over(tokens: list[Token]) -> list[Token]:
    for name, command in ((r"\over", r"\frac"), (r"\choose", r"\binom")):
        places = [index for index, token in enumerate(tokens) if token.value == name]
        if len(places) == 1:
            place = places[0]
            top, bottom = tokens[:place], tokens[place + 1 :]
            return [Token("command", command), _OPEN, *top, _CLOSE, _OPEN, *bottom, _CLOSE]
    return tokens
