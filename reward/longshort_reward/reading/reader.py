"""An answer as tokens, whatever font, size and spacing it is set in."""

from longshort_reward.reading.arranging import arranged
from longshort_reward.reading.characters import plain_characters
from longshort_reward.reading.scanner import Scanner, without_dollars
from longshort_reward.reading.tokens import Token


def read(answer: str) -> list[Token]:
    """The tokens of an answer.

    Raises UnreadableError.
    """
    scanner = Scanner(without_dollars(plain_characters(answer)))
    scanner.scan(0, len(scanner.text), prose=False, depth=0)
    return arranged(scanner.tokens)
