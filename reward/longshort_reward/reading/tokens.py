"""The tokens of an answer, and how they are written as LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass


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
