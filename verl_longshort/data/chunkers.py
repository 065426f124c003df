"""Chunkers say which steps of a chain belong to one thought. `CHUNKERS` has them by the values of `longshort.method`:

* `RuleChunker` goes by discourse markers: a step that opens with one begins a thought. No model.
* `LLMChunker` asks a language model (paper, section 3). The model sees the problem and the numbered steps and replies
  with blocks, as JSON. Blocks must begin with the first step, continue without gap or overlap, and end with the last
  step; the authors' released code lets blocks pass that end before it. The model only says where to cut: it never
  writes a word of the thoughts.

A new one is a class and a line in `CHUNKERS`.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from verl_longshort.data.records import Chain
from verl_longshort.data.steps import VISIBLE, Block, Steps
from verl_longshort.data.whole_blocks import LINE_ENDS, whole_blocks
from verl_longshort.llm.client import Message
from verl_longshort.llm.json_reply import read_objects
from verl_longshort.llm.task_client import BadReplyError, TaskClient

START = "start"
"""Kind of a chain's first thought when no marker opens it."""
_MOST_DIGITS = 6
_LONGEST_OPENING = 200
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2019\u2018\u02bc\u2032\u00b4\uff07\u201b`", "'"),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"),
    }
)
"""Forms of apostrophes and hyphens."""
_LATEX = "textbf|textit|textrm|emph|underline|text|item|noindent|paragraph|(?:sub)*section"
_BEFORE = re.compile(
    r"(?:</?\w{1,10}>"
    rf"|\\(?:{_LATEX})\*?(?![a-z])"
    r"|(?:\d{1,3}|[ivx]{2,4}|[a-z])[.):\]\u3001\uff0e\uff09\uff1a](?!\d)|\d\ufe0f?\u20e3"
    r"|[\u2460-\u249b\u2160-\u216b\u2776-\u277f]"
    rf"|_|[^\w\\$|<{LINE_ENDS}])*",
    re.IGNORECASE,
)
"""What may stand before a marker, on its line: tags, LaTeX commands, numbers of a list, signs that begin no formula."""
_TASK = """
Below are a problem and the notes of someone solving it, cut into numbered steps. Group neighbouring steps
into thoughts. A thought is one move of the solver: understanding what is asked, choosing a method, carrying
out one part of the calculation, trying another way, checking a result, correcting a mistake, drawing the
conclusion. A new thought begins where the solver turns to something else. Most notes have between 5 and 20
thoughts.

Reply with a JSON list, one object per thought, in order:
[{{"start": 1, "end": 3, "kind": "understanding"}}, {{"start": 4, "end": 4, "kind": "calculation"}}]
"start" and "end" are the numbers of the thought's first and last step, "kind" names the move in one or two
words. Every step belongs to exactly one thought: the first starts at 1, each next one starts right after the
one before it ends, and the last ends at {count}.

PROBLEM
{problem}

STEPS
{steps}
""".strip()


Chunker = Callable[[Chain, Steps], Awaitable[list[Block]]]
"""Says which of a chain's steps make a thought. Raises RejectedError for a chain that it cannot cut."""


class RuleChunker:
    """Markers are words that a step opens with, by the kind of thought they begin; the longest one decides.

    Upper and lower case are the same, and so are the forms of apostrophes, hyphens and spaces. Only whole words count
    (`so` does not open `some`), except in scripts that put no spaces between words. What stands before a marker without
    being a word is passed over: Markdown, list numbers, quotation marks, brackets, LaTeX's `\\textbf{` and the like.
    """

    def __init__(self, markers: Mapping[str, Sequence[str]]) -> None:
        kinds = {marker.strip(): kind for kind, words in markers.items() for marker in words if marker.strip()}
        self._openings: dict[str, re.Pattern[str]] = {}
        """By the first character, since there are hundreds of markers: one group for each."""
        self._kinds: dict[str, list[str]] = defaultdict(list)
        patterns: dict[str, list[str]] = defaultdict(list)
        for marker in sorted(kinds, key=len, reverse=True):
            first = marker[0].casefold()
            patterns[first].append(f"({_marker_pattern(marker)})")
            self._kinds[first].append(kinds[marker])
        for first, words in patterns.items():
            self._openings[first] = re.compile("|".join(words), re.IGNORECASE)

    async def __call__(self, record: Chain, steps: Steps) -> list[Block]:
        """See `Chunker`."""
        return self.blocks(steps)

    def blocks(self, steps: Steps) -> list[Block]:
        """One block for every step with a marker, and what follows it up to the next one."""
        kinds = [self._kind(text) for text in steps.texts]
        starts = [k for k, kind in enumerate(kinds) if k == 0 or kind is not None]
        ends = [*(start - 1 for start in starts[1:]), len(kinds) - 1]
        return [
            Block(first=first, last=last, kind=kinds[first] or START) for first, last in zip(starts, ends, strict=True)
        ]

    def _kind(self, text: str) -> str | None:
        """The kind of the marker that a step opens with; None when there is none, or a block that stays whole."""
        begin = VISIBLE.search(text)
        if begin is None:
            return None
        opening = unicodedata.normalize("NFC", text[begin.start() : begin.start() + _LONGEST_OPENING])
        opening = opening.translate(_PLAIN)
        before = _BEFORE.match(opening)
        place = 0 if before is None else before.end()
        first = opening[place : place + 1].casefold()
        match = self._openings[first].match(opening, place) if first in self._openings else None
        if match is None or match.lastindex is None or any(start <= begin.start() for start, _ in whole_blocks(text)):
            return None
        return self._kinds[first][match.lastindex - 1]


def _marker_pattern(marker: str) -> str:
    """Matches a marker in an opening: any spaces for its spaces, a hyphen or a space for its hyphens, whole words."""
    plain = unicodedata.normalize("NFC", marker).translate(_PLAIN).strip()
    parts = (re.escape(part) for part in re.split(r"([\s-]+)", plain))
    pattern = "".join(r"[\s\u200b-]{1,4}" if not part.strip("\\- ") else part for part in parts)
    spaced = unicodedata.category(plain[-1]) != "Lo"
    return pattern + (r"(?![^\W_])" if spaced else "")


@dataclass(frozen=True)
class LLMChunker:
    """Asks a model for the blocks."""

    model: TaskClient

    async def __call__(self, record: Chain, steps: Steps) -> list[Block]:
        """See `Chunker`. Raises NoReplyError when no reply was valid."""
        messages = chunk_messages(record.problem, steps)
        return await self.model.ask(record.id, messages, lambda reply: read_blocks(reply, len(steps.texts)))


def chunk_messages(problem: str, steps: Steps) -> list[Message]:
    """The chat that asks for the blocks."""
    numbered = "\n\n".join(f"[{number}] {text.strip()}" for number, text in enumerate(steps.texts, start=1))
    task = _TASK.format(problem=problem, steps=numbered, count=len(steps.texts))
    return [{"role": "user", "content": task}]


def read_blocks(reply: str, count: int) -> list[Block]:
    """The blocks in a reply about `count` steps, numbered from 1 or from 0.

    Raises:
        BadReplyError: no reading of the reply is blocks that cover all steps in order, each once.
    """
    return read_objects(
        reply,
        lambda items: _checked([_block(item) for item in items], count),
        required={"start", "end"},
        described='"start", "end" and "kind"',
    )


def _number(value: Any) -> int:
    if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) <= _MOST_DIGITS:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**_MOST_DIGITS:
        return value
    raise BadReplyError(f'"start" and "end" must be step numbers, not {str(value)[:20]!r}')


def _block(item: Mapping[str, Any]) -> Block:
    first, last, kind = _number(item["start"]), _number(item["end"]), item.get("kind")
    if not isinstance(kind, str) or not kind.strip():
        raise BadReplyError('every object needs a "kind"')
    return Block(first=first, last=last, kind=kind.strip().lower())


def _checked(blocks: Sequence[Block], count: int) -> list[Block]:
    base = blocks[0].first
    if base not in (0, 1):
        raise BadReplyError(f"the first thought starts at {base}, not at 1")
    expected = base
    for block in blocks:
        if block.first != expected:
            raise BadReplyError(f"a thought starts at {block.first} where {expected} is next")
        if block.last < block.first:
            raise BadReplyError(f"a thought goes from {block.first} back to {block.last}")
        expected = block.last + 1
    if expected != base + count:
        raise BadReplyError(f"the last thought ends at {expected - 1}, not at {base + count - 1}")
    return [replace(block, first=block.first - base, last=block.last - base) for block in blocks]


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What a chunker is made with: the settings' markers, and their language model where its spec asks for one."""

    markers: Mapping[str, Sequence[str]]
    client: TaskClient | None

    @property
    def model(self) -> TaskClient:
        """The language model."""
        assert self.client is not None, "a chunker's spec says that it asks a model"
        return self.client


@dataclass(frozen=True, kw_only=True)
class ChunkerSpec:
    """How a chunker is made, and whether it asks the language model of the block `longshort.llm`."""

    make: Callable[[Tools], Chunker]
    asks_model: bool = False


CHUNKERS: dict[str, ChunkerSpec] = {
    "rules": ChunkerSpec(make=lambda tools: RuleChunker(tools.markers)),
    "llm": ChunkerSpec(make=lambda tools: LLMChunker(tools.model), asks_model=True),
}
