"""The text of a turn while it is written: what stands between its tags, and no tag ever.

A turn's text begins behind the role's own opening tag and ends at the next tag of any kind. What stands before the
opening tag, or behind a tag that does not belong there, breaks the protocol and is not shown.
"""

import re

from longshort_reward.protocol import OPENINGS, TAG_PATTERN, TAGS, Role

_LONGEST = max(map(len, TAGS))


class TurnReader:
    """One turn, given in pieces."""

    def __init__(self, role: Role) -> None:
        self._opening = OPENINGS[role]
        self._raw = ""
        self._read = 0
        """How far there is no tag that is not yet known: a piece is read once, however long the turn is."""
        self._begin: int | None = None
        """Where the text begins."""
        self._ended = False
        self.text = ""
        """All that was given out."""

    def feed(self, piece: str) -> str:
        """What the piece adds to the text. The beginning of what may become a tag, and white space, are held back."""
        if self._ended:
            return ""
        self._raw += piece
        tag = self._next_tag()
        if self._begin is None:
            if tag is None:
                return ""
            if tag.group() != self._opening:
                self._ended = True
                return ""
            self._begin = self._read = tag.end()
            tag = self._next_tag()
        self._ended = tag is not None
        return self._give(self._raw[self._begin : self._read].strip())

    def finish(self, turn: str) -> str:
        """What the whole turn adds to the text: all of it if it was not fed."""
        return self._give(self._between(turn))

    def _next_tag(self) -> re.Match[str] | None:
        """The next tag, if it is complete; reads up to it."""
        tag = TAG_PATTERN.search(self._raw, self._read)
        self._read = len(self._raw) - _maybe_tag(self._raw[self._read :]) if tag is None else tag.start()
        return tag

    def _give(self, text: str) -> str:
        if not text.startswith(self.text):
            # a tokenizer that writes another text for the whole than for its parts: what was shown cannot be taken back
            return ""
        new, self.text = text[len(self.text) :], text
        return new

    def _between(self, raw: str) -> str:
        tags = TAG_PATTERN.finditer(raw)
        first = next(tags, None)
        if first is None or first.group() != self._opening:
            return ""
        following = next(tags, None)
        return raw[first.end() : following.start() if following else len(raw)].strip()


def _maybe_tag(text: str) -> int:
    """How many characters at the end may be the beginning of a tag."""
    # no tag has a second "<"
    start = text.rfind("<", -_LONGEST)
    return len(text) - start if start >= 0 and any(tag.startswith(text[start:]) for tag in TAGS) else 0
