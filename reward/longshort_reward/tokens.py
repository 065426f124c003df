r"""An answer as tokens: numbers, letters, words, commands, signs, whatever font, size and spacing they are set in.

Reading is linear in the length of the answer. Afterwards every argument stands in braces (`\frac\pi2`), groups that
only group are gone, words are told from products of letters, and `latex` writes the tokens back for math-verify.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from longshort_reward.characters import plain_characters
from longshort_reward.units import is_unit_word
from longshort_reward.vocabulary import (
    ALIASES,
    ARGUMENTS,
    CONSTANTS,
    DROPPED_WITH_ARGUMENT,
    FONTS,
    FUNCTIONS,
    LAYOUT,
    LITTLE_WORDS,
    MATRICES,
    NOTHING,
    PROSE,
    SPACES,
)

_DEEPEST = 40
_COMMAND = re.compile(r"\\(?:operatorname\*|[a-zA-Z]+|.)", re.DOTALL)
_ENVIRONMENT = re.compile(r"\s*\{([a-zA-Z]{1,20})\*?\}(?:\{[lcr|@ ]{0,40}\})?")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d{1,4}(?!\w|\.\d))?|\.\d+")
_LETTERS = re.compile(r"[a-zA-Z]+|[^\W\d_a-zA-Z]+")
_LINE_SKIP = re.compile(r"\[\d{1,3}(?:\.\d{1,2})?(?:pt|em|ex|mm|cm)\]")
_HALF_OF_DAY = re.compile(r"([aApP])\.? ?[mM]\b\.?")
_ARTICLES = frozenset({"a", "an", "the"})
_VOWELS = frozenset("aeiouAEIOU")


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of an answer."""

    kind: str
    """`number`, `letter`, `text` (a word), `command` or `sign`."""
    value: str
    spaced: bool = False
    """Whether white space stands before it."""


class UnreadableError(ValueError):
    """The answer is no well-formed text: braces do not match, or are nested too deeply."""


def read(answer: str) -> list[Token]:
    """The tokens of an answer.

    Raises UnreadableError.
    """
    scanner = _Scanner(_without_dollars(plain_characters(answer)))
    scanner.scan(0, len(scanner.text), prose=False, depth=0)
    return _arranged(scanner.tokens)


def latex(tokens: Sequence[Token]) -> str:
    """The tokens as LaTeX."""
    written: list[str] = []
    for token in tokens:
        value = {"°": r"^{\circ}", "%": r"\%", "$": r"\$"}.get(token.value, token.value)
        if token.kind == "text":
            value = rf"\text{{ {token.value} }}"
        elif (written and written[-1][-1].isalnum() and written[-1].startswith("\\") and value[0].isalnum()) or (
            written and token.kind == "number" and written[-1][-1].isdigit()
        ):
            value = " " + value
        written.append(value)
    return "".join(written)


def _without_dollars(text: str) -> str:
    """Unescaped dollar signs are delimiters of mathematics in pairs, and otherwise a currency before a number."""
    if "$" not in text:
        return text
    places = [match.start() for match in re.finditer(r"(?<!\\)\$", text)]
    unescaped, kept = set(places), set[int]()
    index = 0
    while index < len(places):
        here = places[index]
        after = places[index + 1] if index + 1 < len(places) else None
        amount = text[here + 1 : here + 3].strip()[:1].isdigit() or text[here + 1 : here + 2] == "."
        between = text[here + 1 : after] if after is not None else ""
        opens_amount = after is not None and text[after + 1 : after + 2].isdigit() and between[-1:] in (" ", ",", "(")
        if after is None or opens_amount:
            if amount:
                kept.add(here)
            index += 1
        else:
            index += 2
    pieces = [
        (r"\$" if place in kept else " ") if place in unescaped else character for place, character in enumerate(text)
    ]
    return "".join(pieces)


class _Scanner:
    """Reads a text from left to right; `tokens` grows."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[Token] = []
        self._spaced = False
        self._layout = False
        self._ends = _matching_braces(text)

    def scan(self, start: int, end: int, *, prose: bool, depth: int) -> None:
        if depth > _DEEPEST:
            raise UnreadableError("nested too deeply")
        position = start
        while position < end:
            character = self.text[position]
            if character == "\\":
                position = self._command(position, end, prose, depth)
            elif character.isspace() or character == "~":
                self._spaced, position = True, position + 1
            elif number := _NUMBER.match(self.text, position, end):
                self._add("number", number.group())
                position = number.end()
            elif letters := _LETTERS.match(self.text, position, end):
                position = self._letters(letters, end, prose)
            elif character == "*" and self.text.startswith("**", position):
                # Bold in Markdown, or a power in a calculator.
                power = bool(self.tokens) and position + 2 < end and self.text[position + 2 : position + 3] not in "*"
                if (power and self.tokens[-1].kind in ("number", "letter")) or (power and self.tokens[-1].value == ")"):
                    self._add("sign", "^")
                position += 2
            elif character == "&" and self._layout:
                position += 1
            elif self.text.startswith("...", position):
                self._add("command", r"\ldots")
                position += 3
            elif character == '"' and self._after_number() and any(token.value == "'" for token in self.tokens[-3:]):
                # Inches behind feet, seconds behind minutes.
                self.tokens += [Token("sign", "'"), Token("sign", "'")]
                position += 1
            else:
                self._add("sign", "'" if character == "`" else character)
                position += 1

    def _add(self, kind: str, value: str) -> None:
        self.tokens.append(Token(kind, value, self._spaced))
        self._spaced = False

    def _group(self, position: int, end: int) -> tuple[int, int] | None:
        """Where the group begins and ends that opens at `position` or behind white space."""
        while position < end and self.text[position].isspace():
            position += 1
        if position >= end or self.text[position] != "{":
            return None
        return position + 1, self._ends[position]

    def _command(self, position: int, end: int, prose: bool, depth: int) -> int:
        found = _COMMAND.match(self.text, position, end)
        if found is None:  # a lone backslash at the end
            return end
        name, position = found.group(), found.end()
        if name in SPACES:
            self._spaced = True
        elif name in (r"\begin", r"\end"):
            return self._environment(name, position, end)
        elif name in NOTHING:
            if name in (r"\left", r"\right") and self.text.startswith(".", position):
                position += 1
        elif (name in (r"\textcolor", r"\colorbox", r"\color") and (group := self._group(position, end))) or (
            name in DROPPED_WITH_ARGUMENT and (group := self._group(position, end))
        ):
            return group[1] + 1
        elif name in PROSE and (group := self._group(position, end)):
            self._prose(name, *group, depth)
            return group[1] + 1
        elif name in FONTS and (group := self._group(position, end)):
            self._add("sign", "{")
            self.scan(*group, prose=prose, depth=depth + 1)
            self._add("sign", "}")
            return group[1] + 1
        elif name == r"\not" and self.text[position : position + 1] == "=":
            self._add("command", r"\neq")
            position += 1
        elif name == r"\deg" and self._after_number():
            self._add("sign", "°")
        elif name == r"\&":
            self._add("text", "and")
        elif name == r"\\":
            self._add("command", r"\\")
            skip = _LINE_SKIP.match(self.text, position, end)
            position = skip.end() if skip else position
        elif name not in PROSE and name not in FONTS:
            value = ALIASES.get(name, name)
            self._add("command" if value.startswith("\\") else "sign", value)
        return position

    def _environment(self, name: str, position: int, end: int) -> int:
        found = _ENVIRONMENT.match(self.text, position, end)
        if found is None:
            return position
        kind = found[1]
        self._layout = self._layout or kind in LAYOUT
        if kind not in LAYOUT:
            kind = "pmatrix" if kind in MATRICES else kind
            if name == r"\end" and self.tokens and self.tokens[-1].value == r"\\":
                self.tokens.pop()
            self._add("command", f"{name}{{{kind}}}")
        return found.end()

    def _prose(self, name: str, start: int, end: int, depth: int) -> None:
        content = self.text[start:end].strip()
        if content in FUNCTIONS and not (self._after_number() and is_unit_word(content)):
            self._add("command", "\\" + content)
        elif len(content) == 1 and content.isalpha():
            unit = self._after_number() and content != "e" and content != "i" and is_unit_word(content)
            self._add("text" if unit or not content.isascii() else "letter", content)
        else:
            self._spaced = self._spaced or self.text[start : start + 1].isspace()
            # `\mathrm` sets mathematics upright, such as `x=6`; there only long runs are words.
            upright = name in (r"\mathrm", r"\mathop") and not self._after_number() and not content.isalpha()
            self.scan(start, end, prose=not upright, depth=depth + 1)
            self._spaced = self._spaced or self.text[end - 1 : end].isspace()

    def _after_number(self) -> bool:
        """Whether the last token may be the end of an amount or of a unit, so that a unit may follow."""
        if not self.tokens:
            return False
        last = self.tokens[-1]
        if last.kind == "number" or last.value in ("}", ")", "$", "°", r"\mu"):
            return True
        if last.value in ("/", r"\cdot", r"\times", "*", "-", ".") and len(self.tokens) > 1:
            last = self.tokens[-2]
        return last.kind == "text" and is_unit_word(last.value)

    def _behind_unit(self) -> bool:
        """Whether a unit and a slash stand last."""
        return len(self.tokens) > 1 and self.tokens[-1].value == "/" and self.tokens[-2].kind == "text"

    def _letters(self, found: re.Match[str], end: int, prose: bool) -> int:
        run = found.group()
        if (
            self.tokens
            and self.tokens[-1].kind == "number"
            and (half := _HALF_OF_DAY.match(self.text, found.start(), end))
        ):
            self._add("text", half[1].lower() + "m")
            return half.end()
        if not run.isascii():
            self._add("text", run)
        elif prose:
            unit = self._after_number() and is_unit_word(run)
            self._add("text" if len(run) > 1 or unit or run in _ARTICLES else "letter", run)
        elif len(run) > 1 and self._is_word(run, found.start(), found.end()):
            self._add("text", run)
        elif run in CONSTANTS:
            self._add("command", CONSTANTS[run])
        elif run in FUNCTIONS:
            self._add("command", "\\" + run)
        elif len(run) == 1 and (self._spaced or self._behind_unit()) and self._after_number() and is_unit_word(run):
            self._add("text" if _ends_item(self.text, found.end()) else "letter", run)
        else:
            for letter in run:
                self._add("letter", letter)
        return found.end()

    def _is_word(self, run: str, start: int, end: int) -> bool:
        after_number = self._after_number()
        if after_number and is_unit_word(run):
            return _ends_item(self.text, end)
        if run in FUNCTIONS or run in CONSTANTS:
            return False
        apart = (self._spaced or start == 0 or not self.tokens) or after_number
        if run.lower() in LITTLE_WORDS:
            return apart
        vowels = sum(letter in _VOWELS or letter in "yY" for letter in run)
        if after_number and not self._spaced:
            return len(run) >= 4 and vowels > 0
        return len(run) >= 4 or (len(run) == 3 and vowels > 0 and apart and _bounded(self.text, start, end))


def _ends_item(text: str, position: int) -> bool:
    """Whether what follows may stand behind a unit: the end, a power, another unit, punctuation; no operator."""
    rest = text[position : position + 3].lstrip(" ~}")
    return not rest or rest[0] in "^/,;.)]*·-\\'²³$°" or rest[0].isalnum()


def _bounded(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start], text[end : end + 1]
    return (not before or before in " ,;:(\"{'") and (not after or after in " ,;:.)\"}'!?")


def _matching_braces(text: str) -> dict[int, int]:
    opened: list[int] = []
    ends: dict[int, int] = {}
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "{":
            opened.append(position)
        elif character == "}":
            if not opened:
                raise UnreadableError("a brace closes that never opened")
            ends[opened.pop()] = position
        position += 1
    if opened:
        raise UnreadableError("a brace is never closed")
    return ends


def _arranged(tokens: Sequence[Token]) -> list[Token]:
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
        if depth > 2 * _DEEPEST:
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
        if position >= len(self._tokens) or depth > 2 * _DEEPEST:
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
