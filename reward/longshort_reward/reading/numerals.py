"""Numbers of several tokens: thousands, decimal commas, repeating decimals, combinations, each made one piece."""

from collections.abc import Sequence
from fractions import Fraction

from longshort_reward.reading.tokens import Token

_OPEN, _CLOSE = Token("sign", "{"), Token("sign", "}")


def merged(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with numbers of several pieces in one."""
    return _combinations(_repeating(_thousands(_scientific(tokens))))


def _scientific(tokens: Sequence[Token]) -> list[Token]:
    """`3x10^8` with a letter for the sign."""
    values = [token.value for token in tokens]
    times = {i for i, value in enumerate(values) if value in ("x", "X") and i and _is_power_of_ten(tokens, values, i)}
    return [Token("command", r"\times") if i in times else token for i, token in enumerate(tokens)]


def _is_power_of_ten(tokens: Sequence[Token], values: list[str], place: int) -> bool:
    return tokens[place - 1].kind == "number" and values[place + 1 : place + 3] == ["10", "^"]


def _thousands(tokens: list[Token]) -> list[Token]:
    out: list[Token] = []
    position, depth = 0, 0
    while position < len(tokens):
        token = tokens[position]
        depth += {"(": 1, "[": 1, r"\{": 1, ")": -1, "]": -1, r"\}": -1}.get(token.value, 0)
        if token.kind == "number" and token.value.isdigit():
            end = _end_of_thousands(tokens, position, depth > 0)
            if end > position + 1:
                digits = "".join(piece.value for piece in tokens[position:end] if piece.kind == "number")
                out.append(Token("number", digits, token.spaced))
                position = end
                continue
            if _decimal_comma(tokens, position) and depth <= 0:
                whole = f"{token.value}.{tokens[position + 2].value}"
                out.append(Token("number", whole, token.spaced))
                position += 3
                continue
        out.append(Token("sign", ",", token.spaced) if token.value == "{,}" else token)
        position += 1
    return out


def _end_of_thousands(tokens: list[Token], start: int, inside: bool) -> int:
    if len(tokens[start].value) > 3 or (tokens[start].value == "0"):
        return start + 1
    separator = None
    position = start + 1
    while position < len(tokens):
        comma = tokens[position].value in (",", "{,}", "'")
        group = position + 1 if comma else position
        if group >= len(tokens) or tokens[group].kind != "number":
            break
        kind = tokens[position].value if comma else " "
        whole, _, decimals = tokens[group].value.partition(".")
        if (
            separator not in (None, kind)
            or len(whole) != 3
            or not whole.isdigit()
            or (decimals and not decimals.isdigit())
        ):
            break
        # In brackets a comma parts, unless it is `{,}`; a space before it or behind it parts as well.
        spaced = tokens[group].spaced
        apart = spaced or tokens[position].spaced
        if (kind == "," and (inside or apart)) or (kind == "'" and apart) or (kind == " " and not spaced):
            break
        if kind == " " and group + 1 < len(tokens) and tokens[group + 1].value == "/":
            break
        separator, position = kind, group + 1
        if decimals or "." in tokens[group].value:
            break
    return position


def _decimal_comma(tokens: list[Token], position: int) -> bool:
    """`3{,}14`."""
    after = tokens[position + 1 : position + 3]
    return len(after) == 2 and after[0].value == "{,}" and after[1].value.isdigit()


def _repeating(tokens: list[Token]) -> list[Token]:
    out: list[Token] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        end, digits = position + 1, ""
        behind_point = token.kind == "number" and "e" not in token.value.lower()
        if behind_point and "." in token.value:
            end, digits = _period(tokens, position + 1, token.value)
        elif behind_point and position + 1 < len(tokens) and tokens[position + 1].value == ".":
            # `0.\overline{3}`
            end, digits = _period(tokens, position + 2, token.value + ".")
        if digits:
            whole, _, fixed = token.value.partition(".")
            value = Fraction(int((whole + fixed) or "0")) + Fraction(int(digits), 10 ** len(digits) - 1)
            value /= 10 ** len(fixed)
            out += _fraction(value, token.spaced)
            position = end
        else:
            out.append(token)
            position += 1
    return out


def _period(tokens: list[Token], position: int, before: str) -> tuple[int, str]:
    """Where the repeating end of a decimal ends, and its digits; "" when there is none."""
    values = [token.value for token in tokens[position : position + 4]]
    if values[:2] == [r"\overline", "{"] and len(values) == 4 and values[2].isdigit() and values[3] == "}":
        return position + 4, values[2]
    if values[:2] == [r"\dot", "{"] and len(values) == 4 and values[2].isdigit() and values[3] == "}":
        digits, position = values[2], position + 4
        values = [token.value for token in tokens[position : position + 5]]
        if values[:1] and values[0].isdigit() and values[1:3] == [r"\dot", "{"] and values[3].isdigit():
            return position + 5, digits + values[0] + values[3]
        if values[:2] == [r"\dot", "{"] and values[2].isdigit():
            return position + 4, digits + values[2]
        return position, digits
    if values[:1] == ["("] and len(values) >= 3 and values[1].isdigit() and values[2] == ")":
        return position + 3, values[1]
    if values[:1] == [r"\ldots"] and (period := _seen_twice(before.partition(".")[2])):
        return position + 1, period
    return position, ""


def _seen_twice(decimals: str) -> str:
    """The shortest end of a decimal that has stood at least twice, three times if it is one digit; else ""."""
    for size in range(1, min(len(decimals) // 2, 12) + 1):
        times = 3 if size == 1 else 2
        if len(decimals) >= size * times and decimals.endswith(decimals[-size:] * times):
            return decimals[-size:]
    return ""


def _fraction(value: Fraction, spaced: bool) -> list[Token]:
    top, bottom = Token("number", str(value.numerator)), Token("number", str(value.denominator))
    return [Token("command", r"\frac", spaced), _OPEN, top, _CLOSE, _OPEN, bottom, _CLOSE]


def _combinations(tokens: list[Token]) -> list[Token]:
    """`C(5,2)`, `C_5^2`, `{}_5C_2` as binomial coefficients."""
    if not any(token.value == "C" for token in tokens):
        return tokens
    out: list[Token] = []
    position = 0
    while position < len(tokens):
        found = _combination(tokens, position)
        if found is None:
            out.append(tokens[position])
            position += 1
        else:
            top, bottom, position = found
            out += [Token("command", r"\binom"), _OPEN, top, _CLOSE, _OPEN, bottom, _CLOSE]
    return out


_COMBINATIONS = (
    ("C", "(", 0, ",", 1, ")"),
    ("C", "_", "{", 0, "}", "^", "{", 1, "}"),
    ("C", "^", "{", 1, "}", "_", "{", 0, "}"),
    ("_", "{", 0, "}", "C", "_", "{", 1, "}"),
    ("^", "{", 0, "}", "C", "_", "{", 1, "}"),
)


def _combination(tokens: list[Token], position: int) -> tuple[Token, Token, int] | None:
    for pattern in _COMBINATIONS:
        piece = tokens[position : position + len(pattern)]
        numbers: dict[int, Token] = {}
        for token, wanted in zip(piece, pattern, strict=False):
            if isinstance(wanted, int) and token.value.isdigit():
                numbers[wanted] = token
            elif token.value != wanted:
                break
        else:
            if len(numbers) == 2:
                return numbers[0], numbers[1], position + len(pattern)
    return None
