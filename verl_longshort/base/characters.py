"""Half characters: surrogates (U+D800 to U+DFFF) without their other half, as in a text that was cut inside an emoji.

JSON can hold them (`"\\ud83d"`), UTF-8 and tokenizers cannot.
"""

import re

_SURROGATES = re.compile(r"[\ud800-\udfff]")


def half_character(text: str) -> str | None:
    """The first half of a character in `text`, such as `U+D83D`; None where all characters are whole."""
    found = _SURROGATES.search(text)
    return None if found is None else f"U+{ord(found.group()):04X}"


def whole_characters(text: str) -> str:
    """`text` with each half of a character replaced by U+FFFD; two halves that belong together become one."""
    if _SURROGATES.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
