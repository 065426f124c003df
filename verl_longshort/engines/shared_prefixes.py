"""Keys and values that many requests continue: rollouts from every prefix of one text.

`SharedPrefixes` replaces `Prefixes` in an engine whose requests branch. It remembers the prompts of
finished requests, and a later prompt gets the longest beginning that it has in common with any of them: a
part of a kept prompt will do, since keys and values of a token depend on the tokens before it alone. What is
found stays for others.
"""

from collections.abc import Sequence

from torch import Tensor

from verl_longshort.engines.kv_cache import Kept, Prefixes, chain_hashes


class SharedPrefixes(Prefixes):
    """Prompts, `capacity` tokens at most; found by any beginning, and not removed when found."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._beginnings: dict[int, int] = {}
        """Hash of a beginning -> key of a kept prompt that has it."""

    def kept_length(self, prompt: int, stored: int) -> int:
        """The prompt alone: nobody continues what a rollout wrote."""
        return min(prompt, stored)

    def fits(self, tokens: Sequence[int]) -> bool:
        """Also False for what is a part of a kept prompt already."""
        return super().fits(tokens) and chain_hashes(tokens)[-1] not in self._beginnings

    def keep(self, tokens: list[int], states: Tensor) -> None:
        """Remember a prompt; the least recently used ones go when it does not fit otherwise."""
        if not self.fits(tokens):
            return
        super().keep(tokens, states)
        hashes = chain_hashes(tokens)
        self._beginnings.update(dict.fromkeys(hashes, hashes[-1]))

    def take(self, prompt: Sequence[int]) -> Tensor | None:
        """States of the longest beginning of `prompt` that is kept, without its last token; None if none."""
        hashes = chain_hashes(prompt[:-1])
        for length in range(len(hashes), 0, -1):
            key = self._beginnings.get(hashes[length - 1])
            kept = None if key is None else self._kept.get(key)
            if key is not None and kept is not None and kept.tokens[:length] == list(prompt[:length]):
                self._kept.move_to_end(key)
                return kept.states[:, :length]
        return None

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self._beginnings.clear()

    def _drop(self, key: int) -> Kept | None:
        kept = super()._drop(key)
        for beginning in chain_hashes(kept.tokens) if kept else ():
            if self._beginnings.get(beginning) == key:
                del self._beginnings[beginning]
        return kept
