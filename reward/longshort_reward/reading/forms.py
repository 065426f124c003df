"""The forms of answers: words, lists, relations, congruences, ratios, numbers in a base, and mixtures."""

from dataclasses import dataclass

from longshort_reward.reading.amounts import Amount, Clock
from longshort_reward.reading.tokens import Token

Tokens = tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """An answer in words, or a name."""

    text: str


@dataclass(frozen=True, slots=True)
class Several:
    """Values in a row; `brackets` is `""`, or the opening and the closing one."""

    items: tuple["Form", ...]
    brackets: str
    joined: str = ","
    """`and` if that is a word between them; `names` if the values are those of a tuple of names."""


@dataclass(frozen=True, slots=True)
class Relation:
    """Terms with the signs between them: `x = 3`, `1 < x \\le 3`."""

    terms: tuple[Tokens, ...]
    signs: tuple[str, ...]
    value: "Form"
    """The last term."""


@dataclass(frozen=True, slots=True)
class Congruence:
    """`x \\equiv 3 \\pmod 7`; `name` may be empty."""

    name: str
    residue: "Form"
    modulus: "Form"


@dataclass(frozen=True, slots=True)
class Ratio:
    """`3:2`."""

    terms: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Based:
    """A number written in a base."""

    digits: str
    base: str


@dataclass(frozen=True, slots=True)
class Mixed:
    """Words and mathematics that make no other form: compared piece by piece, never evaluated."""

    tokens: Tokens


Form = Amount | Clock | Words | Several | Relation | Congruence | Ratio | Based | Mixed
