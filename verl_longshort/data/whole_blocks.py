r"""Finds what is never cut in a text: code fences, tables, LaTeX environments and display formulas.

Only what is closed counts: a fence or a `\[` without its end does not swallow the rest. Everything takes time linear in
the length of the text.
"""

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator

Span = tuple[int, int]
"""Where a block begins and ends."""
LINE_ENDS = r"\n\r\v\f\x85\u2028\u2029"
_LINE = re.compile(rf"([^{LINE_ENDS}]*)(?:\r\n|[{LINE_ENDS}]|\Z)")
_FENCE = re.compile(r"[\s>]*(?:(?:[-*+]|\d{1,9}[.)])\s+)?(?P<fence>(?P<sign>[`~])(?P=sign){2,})(?P<info>.*)", re.DOTALL)
_LONGEST_FENCE = 8
_RULE = re.compile(r"[\s>]*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
_BRACKETS = re.compile(
    r"\\(?:begin\s*\{(?P<begin>[^{}\s]{1,40})\}|end\s*\{(?P<end>[^{}\s]{1,40})\}|(?P<sign>.))"
    r"|(?P<dollars>\$\$)|[<\[](?P<close>/?)(?P<tag>table|pre|code|asy)\b[^<>\]]{0,200}[>\]]",
    re.DOTALL,
)


def whole_blocks(text: str) -> list[Span]:
    """The blocks of `text`, in order; none overlaps another."""
    lines = [(match.start(1), match.end(1)) for match in _LINE.finditer(text)]
    fences = list(_fences(text, lines))
    found = sorted([*fences, *_tables(text, lines), *_bracketed(text, fences)])
    merged: list[Span] = []
    for start, end in found:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _fences(text: str, lines: list[Span]) -> Iterator[Span]:
    """Fenced code as in CommonMark, at any depth of indentation, in a quotation or a list."""
    found: list[tuple[int, int, tuple[str, int], bool]] = []
    closing: dict[tuple[str, int], list[int]] = defaultdict(list)
    for start, end in lines:
        match = _FENCE.match(text, start, end)
        if match is None:
            continue
        sign, size = match["sign"], min(len(match["fence"]), _LONGEST_FENCE)
        if match["info"].isspace() or not match["info"]:
            for length in range(3, size + 1):
                closing[sign, length].append(len(found))
        opens = sign == "~" or "`" not in match["info"]
        found.append((match.start("fence"), end, (sign, size), opens))
    after = 0
    for number, (start, _, kind, opens) in enumerate(found):
        if number < after or not opens:
            continue
        ends = closing[kind]
        place = bisect_right(ends, number)
        if place < len(ends):
            after = ends[place] + 1
            yield start, found[ends[place]][1]


def _tables(text: str, lines: list[Span]) -> Iterator[Span]:
    """Tables of Markdown: lines that begin with `|`, or that follow a head and a rule (`---|---`)."""
    first = 0
    while first < len(lines) - 1:
        last = first
        if _is_row(text, lines[first]):
            rule = "|" in text[slice(*lines[first + 1])] and _RULE.fullmatch(text, *lines[first + 1])
            while last + 1 < len(lines) and _is_row(text, lines[last + 1], bare=bool(rule)):
                last += 1
            if last > first and (rule or all(_is_row(text, line, bare=False) for line in lines[first : last + 1])):
                start, end = lines[first]
                yield end - len(text[start:end].lstrip()), lines[last][1]
        first = last + 1


def _is_row(text: str, line: Span, *, bare: bool = True) -> bool:
    content = text[slice(*line)].strip().lstrip("> \t")
    return "|" in content if bare else content.startswith("|")


def _bracketed(text: str, fences: list[Span]) -> Iterator[Span]:
    r"""LaTeX (`\begin{…}`, `\[`, `$$`), HTML (`<table>`, `<pre>`, `<code>`), drawings (`[asy]`), outside of fences."""
    opened: list[tuple[str, int]] = []
    depth: Counter[str] = Counter()
    fence = 0
    for match in _BRACKETS.finditer(text):
        while fence < len(fences) and fences[fence][1] <= match.start():
            fence += 1
        if fence < len(fences) and fences[fence][0] <= match.start():
            continue
        name, closes = _bracket(match)
        if not name:
            continue
        if closes or (name == "$$" and depth[name]):
            if not depth[name]:
                continue
            while True:
                inner, start = opened.pop()
                depth[inner] -= 1
                if inner == name:
                    break
            yield start, match.end()
        else:
            opened.append((name, match.start()))
            depth[name] += 1


def _bracket(match: re.Match[str]) -> tuple[str, bool]:
    """The name of what opens or closes here, "" for nothing, and whether it closes."""
    if match["begin"] or match["end"]:
        return match["begin"] or match["end"], match["end"] is not None
    if match["tag"]:
        return f"<{match['tag']}>", bool(match["close"])
    if match["dollars"]:
        return "$$", False
    return ("[", match["sign"] == "]") if match["sign"] in ("[", "]") else ("", False)
