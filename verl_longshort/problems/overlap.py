"""Finds problems that are the same, or nearly: what is trained on must not be tested on.

Two problems are the same when their normalised words are, and nearly the same when the sets of their word
pairs overlap (Jaccard index) by at least a given share. Numbers and operators are words too, so a problem
with other numbers is less alike the shorter it is.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass

from longshort_reward.compat import StrEnum

_DROPPED = re.compile(r"\\(?:left|right|displaystyle|quad|qquad|text|mathrm|mbox|[,;:!])(?![a-zA-Z])|[$~{}]")
_FRACTIONS = re.compile(r"\\[dt]frac(?![a-zA-Z])")
_WORD = re.compile(r"\\?[a-z]+|\d+(?:\.\d+)?|[^\sa-z\d]")
_PUNCTUATION = frozenset(".,;:?!'\"`\\")
_WITHOUT_WIDTH = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_SHINGLE = 2


class Likeness(StrEnum):
    """How two problems are alike."""

    SAME = "same"
    NEAR = "near"


@dataclass(frozen=True, kw_only=True)
class Match:
    """A known problem that a text is alike."""

    name: str
    """Whose problem it is."""
    likeness: Likeness
    similarity: float
    """Jaccard index of the word pairs; 1 for the same words."""


def words(text: str) -> tuple[str, ...]:
    """What matters of a problem's text: lower-case words, numbers and operators, without layout."""
    text = _WITHOUT_WIDTH.sub("", unicodedata.normalize("NFKC", text)).lower()
    text = _DROPPED.sub(" ", _FRACTIONS.sub(r"\\frac", text))
    return tuple(word for word in _WORD.findall(text) if word not in _PUNCTUATION)


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """All pairs of words that follow each other; a shorter text is one shingle."""
    found = words(text)
    if len(found) <= _SHINGLE:
        return frozenset([found])
    return frozenset(found[k : k + _SHINGLE] for k in range(len(found) - _SHINGLE + 1))


class KnownProblems:
    """Problems to compare others with.

    Args:
        similarity: least Jaccard index of two problems that are nearly the same; above 0, at most 1.
    """

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        self._names: list[str] = []
        self._sizes: list[int] = []
        self._by_words: dict[tuple[str, ...], int] = {}
        self._by_shingle: dict[tuple[str, ...], list[int]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, text: str, name: str) -> None:
        """Know one more problem."""
        number = len(self._names)
        found = shingles(text)
        self._names.append(name)
        self._sizes.append(len(found))
        self._by_words.setdefault(words(text), number)
        for shingle in found:
            self._by_shingle[shingle].append(number)

    def same(self, text: str) -> str | None:
        """The name of the known problem with the same words; much faster than `match`."""
        number = self._by_words.get(words(text))
        return None if number is None else self._names[number]

    def match(self, text: str) -> Match | None:
        """The known problem that `text` is most alike, if it is one or nearly."""
        same = self.same(text)
        if same is not None:
            return Match(name=same, likeness=Likeness.SAME, similarity=1.0)
        found = shingles(text)
        shared = Counter(number for shingle in found for number in self._by_shingle.get(shingle, ()))
        jaccard = {number: count / (len(found) + self._sizes[number] - count) for number, count in shared.items()}
        nearest = max(jaccard, key=lambda number: (jaccard[number], -number), default=None)
        if nearest is None or jaccard[nearest] < self._similarity:
            return None
        return Match(name=self._names[nearest], likeness=Likeness.NEAR, similarity=jaccard[nearest])
