"""The stage `chunk`: chains to thoughts. Settings: `config/chunk.yaml`; records and files: `docs/data.md`."""

import re
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from longshort_reward.errors import UserError
from longshort_reward.protocol import TAGS
from longshort_reward.settings import NonNegativeInt, SettingError, Settings
from pydantic import ValidationInfo, field_validator, model_validator
from rich.console import Console

from verl_longshort.base.files import sibling_path, write_jsonl
from verl_longshort.base.rejected import Rejected, RejectedError
from verl_longshort.data.card import summary_table
from verl_longshort.data.chunkers import CHUNKERS, Tools
from verl_longshort.data.records import Chain, Chunked
from verl_longshort.data.steps import VISIBLE, join_blocks, split_steps
from verl_longshort.llm.settings import LLMSettings, work_with_model
from verl_longshort.llm.task_client import TaskClient

_SHOWN = 5


class ChunkSettings(Settings):
    """The `longshort` block of `config/chunk.yaml`; each key is documented there."""

    input: Path
    output: Path
    method: str
    """A key of `CHUNKERS`."""
    splitter: re.Pattern[str]
    line_splitter: re.Pattern[str] | None = None
    """Of chains that `splitter` leaves in one thought."""
    markers: Mapping[str, Sequence[str]]
    seed: NonNegativeInt
    llm: LLMSettings | None
    """None where the method asks no model."""

    @model_validator(mode="before")
    @classmethod
    def _without_unused_model(cls, block: Any) -> Any:
        if isinstance(block, Mapping):
            spec = CHUNKERS.get(block.get("method", ""))
            return dict(block) if spec is not None and spec.asks_model else {**block, "llm": None}
        return block

    @field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        if method not in CHUNKERS:
            raise SettingError("", method, f"must be one of {', '.join(CHUNKERS)}")
        return method

    @field_validator("splitter", "line_splitter", mode="before")
    @classmethod
    def _check_splitter(cls, splitter: Any, info: ValidationInfo) -> Any:
        if splitter is None and info.field_name == "line_splitter":
            return None
        try:
            return re.compile(splitter)
        except (re.error, TypeError) as error:
            raise SettingError("", splitter, f"is no regular expression: {error}") from error


def chunk(
    settings: ChunkSettings, chains: Sequence[Chain], console: Console, *, rejected: Sequence[Rejected] = ()
) -> None:
    """Cut the chains, write the thoughts, print a summary; `rejected` are chains that could not be read.

    Raises UserError when no chain could be cut.
    """
    replies = sibling_path(settings.output, "replies")
    done, aside, requests = work_with_model(
        chains, partial(_cutter, settings), settings.llm, replies=replies, seed=settings.seed, doing="chunk"
    )
    rejected = [*rejected, *aside]
    write_jsonl(sibling_path(settings.output, "rejects"), [each.to_record() for each in rejected])
    if not done:
        raise UserError("longshort.input", settings.input, f"no chain could be cut; the first one, {rejected[0]}")
    write_jsonl(settings.output, [record.to_record() for record in done])
    console.print(summary_table("chunk", _summary(done, rejected, requests)))


def _cutter(settings: ChunkSettings, client: TaskClient | None) -> Callable[[Chain], Coroutine[Any, Any, Chunked]]:
    spec = CHUNKERS[settings.method]
    blocks_of = spec.make(Tools(markers=settings.markers, client=client))
    splitters = [splitter for splitter in (settings.splitter, settings.line_splitter) if splitter is not None]

    async def cut(chain: Chain) -> Chunked:
        _check_text(chain.chain)
        ways = [split_steps(chain.chain, splitter) for splitter in splitters]
        ways = [steps for steps in ways if len(steps.texts) > 1] or ways[:1]
        steps, blocks = ways[0], await blocks_of(chain, ways[0])
        for other in () if spec.asks_model else ways[1:]:
            if len(blocks) == 1 and len(found := await blocks_of(chain, other)) > 1:
                steps, blocks = other, found
        thoughts = join_blocks(steps, blocks)
        # Thoughts that the chain came with are kept as labels.
        labels = {"labels": chain.more["thoughts"]} if "thoughts" in chain.more else {}
        record = {**chain.to_record(), **labels, "separator": steps.separator, "thoughts": thoughts}
        return Chunked.model_validate(record)

    return cut


def _check_text(chain: str) -> None:
    """Raises RejectedError for a chain that no later stage can use: weighing takes long, so it is found out here."""
    if VISIBLE.search(chain) is None:
        raise RejectedError("no text in the chain", f"{len(chain)} characters of white space")
    tags = [tag for tag in TAGS if tag in chain]
    if tags:
        # No turn can hold it.
        raise RejectedError("a protocol tag in the chain", f"{tags[0]}: give the text between the tags")


def _summary(done: Sequence[Chunked], rejected: Sequence[Rejected], requests: int) -> dict[str, object]:
    counts = sorted(len(record.thoughts) for record in done)
    whole = [record.id for record in done if len(record.thoughts) == 1]
    first = f": {', '.join(whole[:_SHOWN])}{', …' if len(whole) > _SHOWN else ''}" if whole else ""
    kinds = Counter(thought.kind for record in done for thought in record.thoughts)
    return {
        "chains cut": len(done),
        "rejected": len(rejected),
        "thoughts per chain: least, median, most": f"{counts[0]}, {median(counts):g}, {counts[-1]}",
        "chains of one thought": f"{len(whole)} ({len(whole) / len(done):.1%}){first}",
        **{f"thoughts of the kind {kind}": count for kind, count in kinds.most_common(12)},
        "requests to the model": requests,
    }
