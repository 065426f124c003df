"""What somebody sees of a trajectory while it is generated: who speaks, and the text as it comes.

`Watcher` is told by `run_trajectory`; `TextStream` makes text of the pieces that an engine gives.
"""

from collections.abc import Sequence

from longshort_reward.protocol import Role, Turn

from verl_longshort.core.role_view import Tokenizer, decode_turn

Piece = Sequence[int] | str
"""What a model has generated since the piece before: token ids, or text of an endpoint, which gives no ids."""

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""At the end of decoded text: the rest of the character is in the tokens to come."""
_WINDOW = 16
"""Tokens that are decoded again with every piece; beginning anew takes a second decoding."""


class Watcher:
    """Is told of a trajectory as it happens, in the event loop that runs it. Does nothing; subclasses do."""

    def turn_begins(self, role: Role) -> None:
        """The model of `role` was asked for a turn."""

    def turn_grows(self, role: Role, text: str) -> None:
        """More of the turn's text, tags included, from a model that streams; the end of a turn may be missing."""

    def turn_ends(self, turn: Turn, tokens: int) -> None:
        """The whole turn, and how many tokens were generated for it."""


class TextStream:
    """The text of one turn, piece by piece: what `decode_turn` gives for the whole, up to an unfinished character.

    Decodes a window of tokens that begins at least a piece before the new one: what a tokenizer writes for a token may
    depend on the one before it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._known, self._text = 0, ""
        """Tokens of the window whose text was given out, and that text."""

    def add(self, piece: Piece) -> str:
        """The text that the piece adds."""
        if isinstance(piece, str):
            return piece
        self._window.extend(piece)
        text = decode_turn(self._tokenizer, self._window)
        if len(text) <= len(self._text) or text.endswith(_UNFINISHED):
            return ""
        new, self._text = text[len(self._text) :], text
        if len(self._window) > _WINDOW:
            self._window = self._window[self._known :]
            self._text = decode_turn(self._tokenizer, self._window)
        self._known = len(self._window)
        return new
