"""Where a generation ends: tokens that end a sequence, and stop strings.

Does the newest token complete a stop string in the generated text?

Decoding is the slow part, so it is done only after a token that can end a stop string at all: one whose own
text holds the string's last character. That is worked out once per token id and set of strings.
"""

from collections.abc import Sequence
from typing import Protocol

from longshort_reward.protocol import TAGS

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_TAIL_TOKENS = 8  # beyond one token per character of the stop string


class Decoder(Protocol):
    """What stop strings need of a Hugging Face tokenizer."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str: ...


def plain_text(tokenizer: Decoder, tokens: Sequence[int]) -> str:
    """The text of tokens, special ones included, spaces as they are."""
    return tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def end_tokens(tokenizer: Decoder, *named: int | Sequence[int] | None) -> list[int]:
    """The token ids that configurations name as ends of a sequence, once each.

    Without the protocol's tags, which exported policies may name: whoever generates says if a tag is to end it.
    """
    ids = [one for some in named if some is not None for one in ([some] if isinstance(some, int) else some)]
    return [one for one in dict.fromkeys(ids) if one >= 0 and plain_text(tokenizer, [one]).strip() not in TAGS]


class StopStrings:
    """One set of stop strings with one tokenizer; requests share it, and its cache of tokens."""

    def __init__(self, tokenizer: Decoder, strings: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._strings = tuple(strings)
        self._longest = max((len(s) for s in strings), default=0)
        self._last = {s[-1] for s in strings}
        # a character of several bytes can be spread over tokens, and a space can come with the token after it
        self._any_token = any(not c.isascii() or c.isspace() for c in self._last)
        self._candidates: dict[int, bool] = {}

    def completed_by_last(self, tokens: Sequence[int]) -> bool:
        """Whether the last of the generated `tokens` completes one of the strings."""
        if not self._strings:
            return False
        newest = tokens[-1]
        candidate = self._candidates.get(newest)
        if candidate is None:
            candidate = self._any_token or not self._last.isdisjoint(plain_text(self._tokenizer, [newest]))
            self._candidates[newest] = candidate
        if not candidate:
            return False
        before, text = self._tail(tokens)
        # only a match that reaches into the newest token's text counts: an earlier one was seen, or came
        # while min_tokens forbade stopping
        return any(text.find(s, max(0, len(before) - len(s) + 1)) >= 0 for s in self._strings)

    def _tail(self, tokens: Sequence[int]) -> tuple[str, str]:
        """Text of the last tokens without and with the newest, long enough to hold any of the strings."""
        count = self._longest + _TAIL_TOKENS
        while True:
            tail = tokens[-count:]
            before = plain_text(self._tokenizer, tail[:-1]).rstrip(_REPLACEMENT)
            if len(before) >= self._longest or count >= len(tokens):
                return before, plain_text(self._tokenizer, tail)
            count *= 2
