"""Cuts a chain of thought into steps, and joins blocks of steps to thoughts; nothing is lost on the way."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verl_longshort.data.whole_blocks import whole_blocks

VISIBLE = re.compile(r"[^\s\u200b-\u200f\u2060\ufeff]")
"""A character that is neither white space nor without width."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps of a chain; `separator.join(texts)` is the chain.

    The separator is what stands between all steps where that is the same everywhere; otherwise it is "", and
    each text keeps what follows it.
    """

    texts: tuple[str, ...]
    separator: str


@dataclass(frozen=True, kw_only=True)
class Block:
    """Steps `first` to `last`, counted from 0, last included, that are one thought."""

    first: int
    last: int
    kind: str


def split_steps(chain: str, splitter: re.Pattern[str]) -> Steps:
    """Cut `chain` at every match of `splitter`, but not inside a block that stays whole (`whole_blocks`), nor where
    there would be a step of white space alone.

    White space around the chain belongs to its first and last step. Takes time linear in the chain's length, if the
    splitter does.
    """
    visible = VISIBLE.search(chain)
    texts, separators, start, end = [], [], 0, len(chain.rstrip())
    blocks = iter(whole_blocks(chain))
    block = next(blocks, None)
    for match in splitter.finditer(chain):
        while block is not None and block[1] <= match.start():
            block = next(blocks, None)
        inside = block is not None and match.end() > block[0] and match.start() < block[1]
        if not inside and visible is not None and visible.start() < match.start() and match.end() < end:
            texts.append(chain[start : match.start()])
            separators.append(match.group())
            start = match.end()
            visible = VISIBLE.search(chain, start)
    texts.append(chain[start:])
    if len(set(separators)) == 1:
        return Steps(texts=tuple(texts), separator=separators[0])
    own = [text + separator for text, separator in zip(texts, [*separators, ""], strict=True)]
    return Steps(texts=tuple(own), separator="")


def join_blocks(steps: Steps, blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """The thoughts, as a record holds them.

    Raises:
        ValueError: the blocks do not cover all steps in order, each once.
    """
    covered = [index for block in blocks for index in range(block.first, block.last + 1)]
    if covered != list(range(len(steps.texts))):
        raise ValueError(f"blocks: they cover the steps {covered}, not 0 to {len(steps.texts) - 1} in order")
    return [
        {"text": steps.separator.join(steps.texts[block.first : block.last + 1]), "kind": block.kind}
        for block in blocks
    ]
