"""Cuts a chain into thoughts by discourse markers: a step that opens with one begins a thought. No model."""

import re
from collections.abc import Mapping, Sequence

from verl_longshort.data.records import Chain
from verl_longshort.data.steps import Block, Steps

START = "start"
"""Kind of a chain's first thought when no marker opens it."""


class RuleChunker:
    """Markers are words that a step opens with, by the kind of thought they begin; the longest one decides.

    Upper and lower case are the same, and only whole words count: `so` does not open `some`.
    """

    def __init__(self, markers: Mapping[str, Sequence[str]]) -> None:
        self._kinds = {marker.lower(): kind for kind, words in markers.items() for marker in words}
        longest_first = sorted(self._kinds, key=len, reverse=True)
        self._opening = re.compile(
            rf"\s*({'|'.join(map(re.escape, longest_first))})(?!\w)" if longest_first else r"(?!)",
            re.IGNORECASE,
        )

    async def __call__(self, record: Chain, steps: Steps) -> list[Block]:
        """See `chunkers.Chunker`."""
        return self.blocks(steps)

    def blocks(self, steps: Steps) -> list[Block]:
        """One block for every step with a marker, and what follows it up to the next one."""
        kinds = [self._kind(text) for text in steps.texts]
        starts = [k for k, kind in enumerate(kinds) if k == 0 or kind is not None]
        ends = [*(start - 1 for start in starts[1:]), len(kinds) - 1]
        return [
            Block(first=first, last=last, kind=kinds[first] or START) for first, last in zip(starts, ends, strict=True)
        ]

    def _kind(self, step: str) -> str | None:
        opening = self._opening.match(step)
        return self._kinds[opening.group(1).lower()] if opening else None
