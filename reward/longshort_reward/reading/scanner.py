"""Reads an answer from left to right into numbers, letters, words, commands and signs, in linear time.

Fonts, sizes and spacing are left out; words are told from products of letters.
"""

import re

from longshort_reward.reading.tokens import Token, UnreadableError
from longshort_reward.reading.units import is_unit_word
from longshort_reward.reading.vocabulary import (
    ALIASES,
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


_ORDINALS = frozenset({"st", "nd", "rd", "th"})
_ARTICLES = frozenset({"a", "an", "the"})


_VOWELS = frozenset("aeiouAEIOU")


def without_dollars(text: str) -> str:
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


class Scanner:
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
        if last.kind == "number" or last.value in ("}", ")", "$", "°", r"\mu", r"\pi"):
            return True
        if last.value in ("/", r"\cdot", r"\times", "*", "-", ".") and len(self.tokens) > 1:
            last = self.tokens[-2]
        return last.kind == "text" and is_unit_word(last.value)

    def _single_unit_may_follow(self) -> bool:
        """Whether a bare letter may be a unit: behind a number and a space, or in `m/s`; else it is a variable."""
        if len(self.tokens) > 1 and self.tokens[-1].value == "/" and self.tokens[-2].kind == "text":
            return True
        amount = bool(self.tokens) and (self.tokens[-1].kind in ("number", "text") or self.tokens[-1].value == r"\mu")
        return self._spaced and amount and self._after_number()

    def _behind_number(self) -> bool:
        return not self._spaced and bool(self.tokens) and self.tokens[-1].kind == "number"

    def _letters(self, found: re.Match[str], end: int, prose: bool) -> int:
        run = found.group()
        if (
            self.tokens
            and self.tokens[-1].kind == "number"
            and (half := _HALF_OF_DAY.match(self.text, found.start(), end))
        ):
            self._add("text", half[1].lower() + "m")
            return half.end()
        if run in _ORDINALS and self._behind_number():
            pass  # `10th` is 10
        elif not run.isascii():
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
        elif len(run) == 1 and self._single_unit_may_follow() and is_unit_word(run):
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
