r"""Finds `\boxed{}` in a text, in time linear in its length whatever the text is."""

import re

_PIECES = re.compile(r"(\\(?:boxed|fbox)\s*\{)|\\.|([{}])", re.DOTALL)
_OPENING = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BARE = re.compile(r"\\boxed\s*(-?\d+(?:\.\d+)?|[A-Za-z0-9]|\\[a-zA-Z]+)(?![{\w])")
_JOINED = re.compile(
    r"[\s$]*(?:[,;]|[,;]?[\s$]*(?:\\(?:text|quad|qquad)\s*\{?\s*)?(?:and|or)(?:\s*\})?)[\s$]*"
    r"(?:[a-zA-Z](?:_\{?\w\}?)?\s*=\s*)?"
)
_INTRODUCES = re.compile(r".*(?:[=:]|\bis)[\s}]*$|\s*$", re.DOTALL)
_LONGEST_JOINT = 40
_LONGEST = 4000
"""A longer content is no answer, so that its boxes need not be looked for."""
_DEEPEST = 10


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{}` whose braces balance, or None.

    Boxes joined by nothing but a comma or `and`, `or`, and a name (`x =`), are one answer, a list. Of a box in a box
    the inner one counts if the outer one only introduces it (`\boxed{x = \boxed{6}}`).
    """
    if "boxed" not in text and "fbox" not in text:
        return None
    boxes = _outermost(text)
    if not boxes:
        return None
    contents = [_content(text, *boxes[-1])]
    for (start, end, _), (_, _, command) in zip(reversed(boxes[:-1]), reversed(boxes), strict=False):
        between = text[end + 1 : command]
        if len(between) > _LONGEST_JOINT or not _JOINED.fullmatch(between):
            break
        contents.append(_content(text, start, end, 0))
    contents = list(dict.fromkeys(content.strip() for content in reversed(contents))) if len(contents) > 1 else contents
    return ", ".join(contents)


def bare_boxed(text: str) -> str | None:
    r"""The argument of the last `\boxed` without braces: `\boxed 5`; None if there is none."""
    found = _BARE.findall(text)
    return str(found[-1]) if found else None


def opens_box(text: str) -> bool:
    """Whether a box is opened in a text, complete or not."""
    return _OPENING.search(text) is not None


def _outermost(text: str) -> list[tuple[int, int, int]]:
    """Where the contents of complete boxes begin and end, and where their commands begin; none inside another."""
    opened: list[tuple[int, int]] = []
    found: list[tuple[int, int, int]] = []
    for piece in _PIECES.finditer(text):
        if piece[1]:
            opened.append((piece.end(), piece.start()))
        elif piece[2] == "{":
            opened.append((-1, 0))
        elif piece[2] == "}" and opened:
            start, command = opened.pop()
            if start >= 0:
                while found and found[-1][2] > command:
                    found.pop()
                found.append((start, piece.start(), command))
    return found


def _content(text: str, start: int, end: int, command: int) -> str:
    content = text[start:end]
    if text[end + 1 : end + 2] == "{":
        # `\boxed{3}{4}` is no answer; as it stands it equals nothing.
        return content + "}{"
    for _ in range(_DEEPEST):
        if len(content) > _LONGEST or ("boxed" not in content and "fbox" not in content):
            break
        inner = _outermost(content)
        if len(inner) != 1 or not _INTRODUCES.match(content[: inner[0][2]]) or content[inner[0][1] + 1 :].strip(" .$"):
            break
        content = content[inner[0][0] : inner[0][1]]
    return content
