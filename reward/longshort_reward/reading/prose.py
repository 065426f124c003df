"""The answer in a text without a box: what stands behind the last `answer is`, or behind `####`."""

import re

_CUE = re.compile(
    r"(?i:\b(?:final |correct )?answers?\b\**\"?'?\s*(?:\bis\b|\bare\b|[:=：]))\**\s*:?|答案(?:是|为|：|:)|####",
)
_END = re.compile(r"\n|[.。](?:\s|$)|(?<=\S)\*\*")
_DENIAL = re.compile(r"(?:not|never|neither)\s+(?:[-+$\\(\d]|[a-zA-Z]\b)", re.IGNORECASE)
_TAIL = 1500
_LONGEST = 300


def said_answer(text: str) -> str | None:
    """What a text says that its answer is; None if it does not say so in these words."""
    tail = text[-_TAIL:]
    cues = list(_CUE.finditer(tail))
    if not cues:
        return None
    said = tail[cues[-1].end() :].lstrip(" *\n\t")
    end = _END.search(said)
    answer = (said[: end.start()] if end else said).strip(" *\"'}")
    return answer if 0 < len(answer) <= _LONGEST else None


def denies(answer: str) -> bool:
    """Whether an answer says what it is not: `not 42`."""
    return _DENIAL.match(answer) is not None
