"""What an answer may spend, in words: the suffixes of a model's name, and what a person says in a chat."""

from collections.abc import Iterable
from typing import Any

ANSWER, THINK = "answer", "think"
"""Answer at once, so that the short role begins; or think first, as trained."""
_MOST_DIGITS = 9


def effort_options(words: Iterable[str]) -> dict[str, Any]:
    """Fields of `AnswerOptions` for `answer`, `think`, `turns=4`, `tokens=512`; the last word of a kind holds.

    Raises UnknownWordError.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, _, number = word.partition("=")
        if word in (ANSWER, THINK):
            options["think_first"] = word == THINK
        elif name in ("turns", "tokens") and number.isascii() and number.isdecimal() and len(number) <= _MOST_DIGITS:
            options[f"max_{name}"] = int(number)
        else:
            raise UnknownWordError(word)
    return options


class UnknownWordError(ValueError):
    """A word that is no effort."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word
