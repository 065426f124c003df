"""The text of a turn while it is written: what stands between its tags, and no tag ever.

A turn's text begins behind the role's own opening tag and ends at the next tag of any kind. What stands before the
opening tag, or behind a tag that does not belong there, breaks the protocol and is not shown.
"""

from longshort_reward.protocol import OPENINGS, TAG_PATTERN, TAGS, Role


class TurnReader:
    """One turn, given in pieces."""

    def __init__(self, role: Role) -> None:
        self._opening = OPENINGS[role]
        self._raw = ""
        self.text = ""
        """All that was given out."""

    def feed(self, piece: str) -> str:
        """What the piece adds to the text. The beginning of what may become a tag, and white space, are held back."""
        self._raw += piece
        return self._give(self._between(self._raw[: len(self._raw) - _maybe_tag(self._raw)]))

    def finish(self, turn: str) -> str:
        """What the whole turn adds to the text: all of it if it was not fed."""
        return self._give(self._between(turn))

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
    longest = max(map(len, TAGS)) - 1
    return next((n for n in range(longest, 0, -1) if any(tag.startswith(text[-n:]) for tag in TAGS)), 0)
