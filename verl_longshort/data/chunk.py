"""The stage `chunk`: chains to thoughts. Settings: `config/chunk.yaml`; records and files: `docs/data.md`."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from longshort_reward.compat import StrEnum
from longshort_reward.errors import UserError
from longshort_reward.protocol import TAGS
from rich.console import Console

from verl_longshort.base.files import Record, sibling_path, write_jsonl
from verl_longshort.base.rejected import Rejected, RejectedError, work_on_all
from verl_longshort.config.pair import check_keys
from verl_longshort.data.llm_chunker import LLMChunker
from verl_longshort.data.rule_chunker import RuleChunker
from verl_longshort.data.steps import Block, Steps, join_blocks, split_steps
from verl_longshort.data.summary_table import summary_table
from verl_longshort.llm.settings import LLMSettings, open_task_client

_KEYS = ("input", "output", "method", "seed", "splitter", "markers", "llm")

Chunker = Callable[[Record, Steps], Awaitable[list[Block]]]


class Method(StrEnum):
    """Who cuts."""

    RULES = "rules"
    LLM = "llm"


@dataclass(frozen=True, kw_only=True)
class ChunkSettings:
    """The `longshort` block of `config/chunk.yaml`."""

    input: Path
    output: Path
    method: Method
    splitter: re.Pattern[str]
    markers: Mapping[str, Sequence[str]]
    seed: int
    llm: LLMSettings | None

    @classmethod
    def parse(cls, block: Mapping[str, Any]) -> "ChunkSettings":
        """Check a block of plain containers. Raises UserError naming the key that cannot be used."""
        check_keys(block, "longshort", _KEYS)
        method = _method(block["method"])
        llm = LLMSettings.parse(block["llm"], "longshort.llm") if method is Method.LLM else None
        return cls(
            input=Path(block["input"]),
            output=Path(block["output"]),
            method=method,
            splitter=_pattern(block["splitter"]),
            markers=block["markers"],
            seed=block["seed"],
            llm=llm,
        )


def chunk(settings: ChunkSettings, chains: Sequence[Record], console: Console) -> None:
    """Cut the chains, write the thoughts, print a summary. Raises UserError when no chain could be cut."""
    done, aside, asked = asyncio.run(_chunk_all(settings, chains))
    write_jsonl(sibling_path(settings.output, "rejects"), [rejected.to_record() for rejected in aside])
    if not done:
        raise UserError("longshort.input", settings.input, f"no chain could be cut; {_first(aside)}")
    write_jsonl(settings.output, done)
    console.print(summary_table("chunk", _summary(done, aside, asked)))


async def _chunk_all(settings: ChunkSettings, chains: Sequence[Record]) -> tuple[list[Record], list[Rejected], int]:
    if settings.llm is None:
        rules = RuleChunker(settings.markers)

        async def by_rules(_: Record, steps: Steps) -> list[Block]:
            return rules.blocks(steps)

        return *await _cut_all(settings, chains, by_rules), 0
    async with open_task_client(settings.llm, sibling_path(settings.output, "replies"), seed=settings.seed) as asker:
        model = LLMChunker(asker)

        async def by_model(record: Record, steps: Steps) -> list[Block]:
            return await model.blocks(record["id"], record["problem"], steps)

        return *await _cut_all(settings, chains, by_model), asker.cache.asked


async def _cut_all(
    settings: ChunkSettings, chains: Sequence[Record], chunker: Chunker
) -> tuple[list[Record], list[Rejected]]:
    async def work(record: Record) -> Record:
        # Found out here: weighing takes long, and no turn can hold such a thought.
        tags = [tag for tag in TAGS if tag in record["chain"]]
        if tags:
            raise RejectedError("a protocol tag in the chain", f"{tags[0]}: give the text between the tags")
        steps = split_steps(record["chain"], settings.splitter)
        return chunked(record, steps, await chunker(record, steps))

    return await work_on_all(chains, work, doing="chunk")


def chunked(record: Record, steps: Steps, blocks: Sequence[Block]) -> Record:
    """The record with its thoughts; thoughts that it came with are kept as `labels`."""
    labels = {"labels": record["thoughts"]} if "thoughts" in record else {}
    return {**record, **labels, "separator": steps.separator, "thoughts": join_blocks(steps, blocks)}


def _summary(done: Sequence[Record], aside: Sequence[Rejected], asked: int) -> dict[str, object]:
    counts = sorted(len(record["thoughts"]) for record in done)
    kinds = Counter(thought["kind"] for record in done for thought in record["thoughts"])
    return {
        "chains cut": len(done),
        "set aside": len(aside),
        "thoughts per chain: least, median, most": f"{counts[0]}, {median(counts):g}, {counts[-1]}",
        **{f"thoughts of the kind {kind}": count for kind, count in kinds.most_common(12)},
        "requests to the model": asked,
    }


def _first(aside: Sequence[Rejected]) -> str:
    return f"the first one, {aside[0].id}: {aside[0].reason}, {aside[0].detail}"


def _method(value: str) -> Method:
    try:
        return Method(value)
    except ValueError:
        raise UserError("longshort.method", value, f"must be one of {', '.join(Method)}") from None


def _pattern(value: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except re.error as error:
        raise UserError("longshort.splitter", value, f"is no regular expression: {error}") from error
