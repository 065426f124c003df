"""Letters of multiple-choice problems: in a ground truth, at the head of an answer, in a text without a box."""

import re

from longshort_reward.reading.reader import read
from longshort_reward.reading.tokens import Token, UnreadableError
from longshort_reward.reading.trimming import trimmed

_LETTERS = frozenset("ABCDEFGHIJ")
_BRACKETS = {"(": ")", "[": "]"}
_NAMES = frozenset({"option", "choice", "answer", "选", "选项", "故选", "选择"})
_BEHIND = frozenset({")", "]", ".", ":", "=", ",", "-", ";"})
_JOINS = frozenset({",", ";", "/", "&", "and", "or", "(", ")", "+"})
_CUE = re.compile(
    r"(?i:\banswer\b(?:\s+(?:is|would be|must be|should be))?|\b(?:correct|right)\s+(?:option|choice)\b(?:\s+is)?)"
    r"|答案|故选|选"
)
# Not the article `A` and the pronoun `I`, which a word follows that begins no remark on a choice.
_MENTION = re.compile(
    r"(?<![\w'\\])([A-J])(?![\w'])(?! (?!(?:is|and|or|are|was|because|since|not|must|seems|follows|holds)\b)[a-z]+\b)"
)
_UNDECIDED = re.compile(r"(?i:\b(?:not|neither|either|or|nor)\b)")
_TAIL = 1500
_SHORT = 120


def choice(gold: str) -> str | None:
    r"""The letter of a multiple-choice ground truth (`B`, `(B)`, `\text{(B)}`), or None."""
    tokens = _tokens(gold, 40)
    if len(tokens) == 3 and _BRACKETS.get(tokens[0].value) == tokens[2].value:
        tokens = tokens[1:2]
    return tokens[0].value if len(tokens) == 1 and tokens[0].kind == "letter" and tokens[0].value in _LETTERS else None


def leading_choice(answer: str, *, named: bool = False) -> str | None:
    """The letter that an answer is or begins with: `B`, `(b) 12`, `B. 12`, `Answer: B`; None when it is no such answer.

    Args:
        named: it is known to be the answer to a choice, so that a small letter will do.
    """
    tokens = _tokens(answer, 400)
    while len(tokens) > 1 and tokens[0].kind == "text" and tokens[0].value.casefold() in _NAMES:
        tokens, named = tokens[1:], True
        if tokens[0].value == ":":
            tokens = tokens[1:]
    if len(tokens) > 2 and tokens[0].value == r"\{" and tokens[2].value == r"\}":
        tokens = [tokens[1], *tokens[3:]]
    bracketed = bool(tokens) and tokens[0].value in _BRACKETS
    tokens = tokens[1:] if bracketed else tokens
    if not tokens or tokens[0].kind not in ("letter", "text") or tokens[0].value.upper() not in _LETTERS:
        return None
    behind = tokens[1].value if len(tokens) > 1 else ""
    closed = behind in (")", "]")
    if bracketed and not closed:
        return None
    small = tokens[0].value.islower() and not (closed or named)
    said = behind == "is" and len(tokens) > 2 and tokens[2].value in ("correct", "right", "true")
    spaced = behind == "(" and tokens[1].spaced
    ends = not behind or behind in _BEHIND or said or spaced or (named and tokens[1].kind == "text")
    return tokens[0].value.upper() if ends and not small else None


def has_several_choices(answer: str) -> bool:
    """Whether an answer names several letters: `A, C`, `(A) and (B)`."""
    tokens = _tokens(answer, 200)
    letters = [token for token in tokens if token.value in _LETTERS]
    return len(letters) > 1 and all(token in letters or token.value.casefold() in _JOINS for token in tokens)


def choice_in_prose(text: str) -> str | None:
    """The letter that a text without a box settles on: behind its last `answer`, else the last that it names."""
    tail = text[-_TAIL:]
    cues = list(_CUE.finditer(tail))
    if len(text) <= _SHORT and has_several_choices(text):
        return None
    mentions = _MENTION.findall(tail)
    if not cues and len(text) <= _SHORT and len(set(mentions)) <= 1 and (letter := leading_choice(text)):
        return letter
    if cues:
        said = tail[cues[-1].end() :].lstrip(' :：是为*"$').split("\n", 1)[0]
        sentence = re.split(r"[.。;](?:\s|$)|,", said, maxsplit=1)[0]
        several = has_several_choices(sentence)
        if not several and (letter := leading_choice(sentence.strip(' *"$'), named=True)) is not None:
            return letter
        if several or _UNDECIDED.search(sentence):
            return None
    return mentions[-1] if mentions else None


def _tokens(text: str, longest: int) -> list[Token]:
    try:
        return trimmed(read(text)) if len(text) <= longest else []
    except UnreadableError:
        return []
