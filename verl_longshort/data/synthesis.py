"""The stage `coldstart`: weighed thoughts to joint trajectories for the SFT of both roles (paper, section 4).

Records and files: `docs/data.md`.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from longshort_reward import match_answer
from longshort_reward.errors import UserError
from longshort_reward.protocol import TAGS, Role
from longshort_reward.settings import NonNegativeInt, Remedy, Seconds, Settings
from pydantic import Field, Strict, model_validator
from rich.console import Console

from verl_longshort.base.files import ModelPath, check_model, recorded_model, write_jsonl
from verl_longshort.base.rejected import RejectedError
from verl_longshort.core.environment import Limits
from verl_longshort.data.card import ColdStartCard, summary_table
from verl_longshort.data.gaps import as_turns, fill_gaps, find_gaps, labelled, rewritten
from verl_longshort.data.records import ColdStartTrajectory, Selected, Weighed
from verl_longshort.data.selection import select
from verl_longshort.llm.settings import LLMSettings, work_with_model
from verl_longshort.llm.task_client import TaskClient

TokenCounter = Callable[[str], int]
"""Tokens of a text."""


class SynthesisSettings(Settings):
    """The `longshort` block of `config/coldstart.yaml`; each key is documented there."""

    input: Path
    output_dir: Path
    rule: str | None
    rule_options: dict[str, Any]
    rewrite: Literal["llm", "labels"]
    """Who writes what the short role says."""
    tokenizer: ModelPath | None
    limits: Annotated[Limits, Field(alias="environment")]
    val_percent: Annotated[float, Strict(), Field(ge=0, lt=100), Remedy("must be a number from 0 to below 100")]
    seed: NonNegativeInt
    answer_timeout_s: Seconds
    llm: LLMSettings | None
    """None where no model is asked."""

    @model_validator(mode="before")
    @classmethod
    def _without_unused_model(cls, block: Any) -> Any:
        if isinstance(block, Mapping) and block.get("rewrite") != "llm":
            return {**block, "llm": None}
        return block


def coldstart(settings: SynthesisSettings, records: Sequence[Weighed], console: Console) -> None:
    """Make trajectories and data card.

    Raises UserError, before a model is loaded, when a rule refuses its options, and when no record gave a
    trajectory.
    """
    keep = {record.id: keep_flags(record, settings) for record in records}
    count = _counter(settings, records)

    def synthesis(client: TaskClient | None) -> Synthesis:
        return Synthesis(settings=settings, keep=keep, count=count, client=client)

    replies = settings.output_dir / "replies.jsonl"
    done, dropped, asked = work_with_model(
        records, synthesis, settings.llm, replies=replies, seed=settings.seed, doing="cold start"
    )
    write_jsonl(settings.output_dir / "dropped.jsonl", [record.to_record() for record in dropped])
    if not done:
        raise UserError("longshort.input", settings.input, f"no record gave a trajectory; the first one, {dropped[0]}")
    train = [each for each in done if not in_val(each.problem, settings.val_percent)]
    val = [each for each in done if in_val(each.problem, settings.val_percent)]
    write_jsonl(settings.output_dir / "train.jsonl", [each.to_record() for each in train])
    write_jsonl(settings.output_dir / "val.jsonl", [each.to_record() for each in val])
    whole = settings.val_percent.is_integer()
    made_with = {
        "rule": settings.rule or "marked in the input",
        "rule_options": settings.rule_options,
        "rewrite": settings.rewrite,
        "model": settings.llm.model if settings.llm else None,
        "limits": settings.limits.model_dump(),
        "val_percent": int(settings.val_percent) if whole else settings.val_percent,
        "seed": settings.seed,
    }
    card = ColdStartCard.of(settings.input, made_with, train, val, dropped)
    card.write(settings.output_dir)
    console.print(summary_table("cold start", {**card.rows(), "requests to the model": asked}))


def in_val(problem: str, percent: float) -> bool:
    """Whether a problem belongs to the validation part: the same for all chains of a problem, and always."""
    return int(hashlib.sha256(problem.encode()).hexdigest(), 16) % 10_000 < 100 * percent


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """Makes one trajectory of one record."""

    settings: SynthesisSettings
    keep: Mapping[str, Sequence[bool]]
    """By the record's id: which of its thoughts stay long."""
    count: TokenCounter
    client: TaskClient | None
    """Writes what the short role says; None: the labels do."""

    async def __call__(self, record: Weighed) -> ColdStartTrajectory:
        """The trajectory. Raises RejectedError for a record to be dropped, and what the language model raises."""
        tags = [tag for tag in TAGS if tag in record.chain]
        if tags:
            raise RejectedError("a protocol tag in the chain", tags[0])
        if not await self._is_correct(record.chain, record):
            raise RejectedError("wrong final answer", record.chain[-80:])
        keep = self.keep[record.id]
        gaps = find_gaps(keep)
        fillings = await rewritten(self.client, record, keep, gaps) if self.client else labelled(record, gaps)
        pieces = fill_gaps(record.texts, keep, fillings, separator=record.separator)
        if pieces[-1][0] is Role.LONG:
            raise RejectedError("nothing short at the end")
        turns = as_turns(pieces)
        if not await self._is_correct(" ".join(turn.text for turn in turns), record):
            raise RejectedError("the rewritten solution misses the answer", turns[-1].text)
        tokens = {role: [self.count(turn.text) for turn in turns if turn.role == role] for role in Role}
        _check_length(tokens[Role.LONG], tokens[Role.SHORT], self.settings.limits)
        rule = record.rule if isinstance(record, Selected) else self.settings.rule
        assert rule is not None, "without a rule the records are read as selected ones"
        lengths = {str(role): sum(counts) for role, counts in tokens.items()}
        return ColdStartTrajectory(
            id=record.id,
            problem=record.problem,
            ground_truth=record.ground_truth,
            rule=rule,
            turns=turns,
            kept=[index for index, kept in enumerate(keep) if kept],
            thoughts=len(record.thoughts),
            tokens={"chain": self.count(record.chain), **lengths},
        )

    async def _is_correct(self, text: str, record: Weighed) -> bool:
        limit = self.settings.answer_timeout_s
        return await asyncio.to_thread(match_answer, text, record.ground_truth, timeout_s=limit)


def keep_flags(record: Weighed, settings: SynthesisSettings) -> list[bool]:
    """Which thoughts stay long; the first one does, whatever the rule says.

    Raises:
        ValueError: the rule does not give one flag per thought.
    """
    if isinstance(record, Selected):
        keep = [thought.keep for thought in record.thoughts]
    else:
        keep = select(record, rule=settings.rule or "", **settings.rule_options)
    if len(keep) != len(record.thoughts):
        raise ValueError(f"rule {settings.rule}: {len(keep)} flags for {len(record.thoughts)} thoughts")
    return [True, *keep[1:]]


def _counter(settings: SynthesisSettings, records: Sequence[Weighed]) -> TokenCounter:
    """Counts with the tokenizer of the settings, or the one that all records name."""
    name = settings.tokenizer
    if name is None:
        recorded = {record.tokenizer for record in records}
        named = sorted({recorded_model(each, settings.input, key="longshort.tokenizer") for each in recorded})
        if len(named) > 1:
            remedy = f"the records name several ({', '.join(named)}): choose one"
            raise UserError("longshort.tokenizer", None, remedy)
        name = named[0]
        check_model(name, key="longshort.tokenizer")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def _check_length(long: Sequence[int], short: Sequence[int], limits: Limits) -> None:
    for what, tokens, limit in (
        ("turns", len(long) + len(short), limits.max_turns),
        ("tokens in a long turn", max(long), limits.long_turn_tokens),
        ("tokens in a short turn", max(short), limits.short_turn_tokens),
        ("tokens", sum(long) + sum(short), limits.token_budget),
    ):
        if tokens > limit:
            raise RejectedError(f"too many {what}", f"{tokens}, at most {limit}")
