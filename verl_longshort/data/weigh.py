"""The stage `weigh`: how much each thought of a chain matters, by rollouts of a base model from every prefix.

Records and files: `docs/data.md`. All records are under way together, the
earliest first. The command can be killed at any moment and given again: finished records are in the journal, and
what is sampled for a rollout depends on the seed, its record and its number alone.
"""

import asyncio
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from longshort_reward.errors import UserError
from longshort_reward.settings import NonNegativeInt, PositiveFloat, PositiveInt, Remedy, Seconds, SettingError
from pydantic import Field, Strict, model_validator
from rich.console import Console
from typing_extensions import Self

from verl_longshort.base.concurrency import PrioritySemaphore, run_bounded
from verl_longshort.base.dry_run import absolute
from verl_longshort.base.files import (
    ModelPath,
    Record,
    absolute_model,
    check_positions,
    model_identity,
    sibling_path,
    write_jsonl,
)
from verl_longshort.base.journal import RecordFile
from verl_longshort.base.progress import report
from verl_longshort.base.rejected import Rejected
from verl_longshort.core.role_view import Tokenizer
from verl_longshort.data.card import summary_table
from verl_longshort.data.importance import PassCount, more_rollouts, running_maximum, thought_importances
from verl_longshort.data.records import Chunked, Weighed
from verl_longshort.data.rollouts import AnswerPrompt, Prober, Rollout, rollout_counts
from verl_longshort.engines.factory import EngineSettings, open_engine

_QUEUE = 2  # requests let through per place in the engine, so that a free place is taken at once
_NOTHING_CORRECT = (
    "No rollout is correct, so the accuracies tell no thought from another. Does the model (longshort.model) solve "
    "such problems, end within longshort.max_tokens, and answer in the form of longshort.joining?"
)
_FEW_END = 0.5  # of the rollouts: below it, accuracies mostly say where max_tokens cuts
_CUT_OFF = (
    "Only {share:.0%} of the rollouts ended; those that were cut off count as incorrect. Is longshort.max_tokens large "
    "enough, and does the model (longshort.model) end its answers in the form of longshort.joining?"
)
_DECIDES = (
    *("input", "model", "tokenizer", "limit", "samples", "mode", "confidence", "budget"),
    *("temperature", "top_p", "max_tokens", "seed", "system_prompt"),
)


class WeighSettings(EngineSettings):
    """The `longshort` block of `config/weigh.yaml`; each key is documented there."""

    input: str
    output: Path
    model: ModelPath
    tokenizer: str
    limit: PositiveInt | None
    samples: PositiveInt
    mode: Literal["fixed", "adaptive"]
    """How many rollouts a prefix gets."""
    confidence: Annotated[float, Strict(), Field(gt=0, lt=1), Remedy("must lie between 0 and 1")]
    budget: PositiveInt
    temperature: PositiveFloat
    top_p: Annotated[float, Strict(), Field(gt=0, le=1), Remedy("must be above 0 and at most 1")]
    max_tokens: PositiveInt
    seed: NonNegativeInt
    max_num_seqs: PositiveInt
    joining: AnswerPrompt
    system_prompt: str
    answer_timeout_s: Seconds
    rollout_timeout_s: Seconds

    @property
    def journal(self) -> Path:
        """Where finished records are kept while the command runs."""
        return sibling_path(self.output, "journal")

    @property
    def rejects(self) -> Path:
        """Where the records go that cannot be weighed, with the reason."""
        return sibling_path(self.output, "rejects")

    @property
    def sampling(self) -> dict[str, Any]:
        """The engine's sampling keys that all rollouts have in common."""
        return {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}

    def header(self) -> dict[str, Any]:
        """What records of two runs must have in common to belong together, as JSON values."""
        return {
            **{key: getattr(self, key) for key in _DECIDES},
            **self.engine_header(),
            "input": absolute(self.input),
            "model": model_identity(absolute_model(self.model)),
            "tokenizer": absolute_model(self.tokenizer),
            "joining": self.joining.model_dump(),
        }

    @model_validator(mode="before")
    @classmethod
    def _tokenizer_of_the_model(cls, block: Any) -> Any:
        return (
            {**block, "tokenizer": block.get("tokenizer") or block.get("model")} if isinstance(block, dict) else block
        )

    @model_validator(mode="after")
    def _check_positions(self) -> Self:
        check_positions(self.model, self.max_tokens, key="max_tokens")
        return self

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        if self.budget < self.samples and self.mode == "adaptive":
            remedy = f"must be at least longshort.samples ({self.samples}), which each prefix gets at first"
            raise SettingError("budget", self.budget, remedy)
        return self


def weigh(settings: WeighSettings, records: Sequence[Chunked], console: Console) -> list[Weighed]:
    """Weigh the records; write and return them.

    Raises UserError for a journal made with other settings, and when no record could be weighed.
    """
    with RecordFile(settings.journal, settings.header()) as journal:
        done = journal.done
        waiting = [(rank, record) for rank, record in enumerate(records) if record.id not in done]
        if waiting:
            _work(settings, waiting, journal)
        outcomes = {outcome["id"]: outcome for outcome in journal.records}
    ordered = [outcomes[record.id] for record in records]
    weighed = [Weighed.model_validate(outcome) for outcome in ordered if "reason" not in outcome]
    rejects = [outcome for outcome in ordered if "reason" in outcome]
    write_jsonl(settings.rejects, rejects)
    if not weighed:
        first = rejects[0]
        reason = f"no chain could be weighed; the first one, {first['id']}: {first['reason']} ({first['detail']})"
        raise UserError("longshort.input", settings.input, reason)
    write_jsonl(settings.output, [record.to_record() for record in weighed])
    console.print(summary_table(settings.output.name, summary(weighed, rejects, settings.confidence)))
    for line in warnings(weighed):
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    return weighed


def warnings(weighed: Sequence[Weighed]) -> list[str]:
    """What says that the accuracies mean little, and what one rollout wrote."""
    all_counts = [counts for record in weighed for counts in [record.p_start, *record.thoughts]]
    share, lines = _ended_share(weighed), []
    if share is not None and share < _FEW_END:
        lines.append(_CUT_OFF.format(share=share))
    if not any(counts.correct for counts in all_counts):
        lines.append(_NOTHING_CORRECT)
    # behind a whole chain the answer is said already: who is wrong there shows why
    example = next((record.thoughts[-1].example for record in weighed if record.thoughts[-1].correct == 0), None)
    if lines and example is not None:
        lines.append(f"A rollout behind all thoughts of a chain: {example!r}")
    return lines


def _ended_share(weighed: Sequence[Weighed]) -> float | None:
    """Of all rollouts, those that ended; None where records do not say."""
    counts = [counts for record in weighed for counts in [record.p_start, *record.thoughts]]
    ended = [each.ended for each in counts if each.ended is not None]
    return sum(ended) / sum(each.samples for each in counts) if len(ended) == len(counts) and counts else None


def _work(settings: WeighSettings, waiting: Sequence[tuple[int, Chunked]], journal: RecordFile) -> None:
    from transformers import AutoTokenizer

    try:
        counter: Tokenizer = AutoTokenizer.from_pretrained(settings.tokenizer)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        remedy = f"cannot be loaded ({reason}): give a folder"
        raise UserError("longshort.tokenizer", settings.tokenizer, remedy) from error
    total = len(journal.records) + len(waiting)
    with ExitStack() as stack:

        def keep(outcome: Weighed | Rejected) -> None:
            journal.append(outcome.to_record())
            done = len(journal.records)
            report(done, total, f"{done}/{total} chains weighed")

        tokenizer, engine = open_engine(
            settings.model,
            settings,
            max_num_seqs=settings.max_num_seqs,
            seed=settings.seed,
            engines=stack,
            shared_prefixes=True,
        )
        weigher = Weigher(
            settings=settings,
            prober=Prober(
                tokenizer=tokenizer,
                generate=engine.generate,
                queue=PrioritySemaphore(_QUEUE * settings.max_num_seqs),
                answer_prompt=settings.joining,
                system_prompt=settings.system_prompt,
                sampling=settings.sampling,
                seed=settings.seed,
                answer_timeout_s=settings.answer_timeout_s,
            ),
            counter=counter,
            room=engine.max_model_len - settings.max_tokens,
        )
        # as many records as places: enough to fill the engine when each has but one request left
        asyncio.run(
            run_bounded(
                waiting,
                lambda item: weigher.weigh(*item),
                keep,
                limit=settings.max_num_seqs,
                timeout_s=settings.rollout_timeout_s,
            )
        )


@dataclass(frozen=True, kw_only=True)
class Weigher:
    """Weighs one record at a time; many may be under way."""

    settings: WeighSettings
    prober: Prober
    counter: Tokenizer
    """Counts the lengths of thoughts."""
    room: int
    """Tokens that a context may have."""

    async def weigh(self, rank: int, record: Chunked) -> Weighed | Rejected:
        """The record with what its rollouts have shown, or why it cannot be weighed.

        `rank` is its place in the queue for the engine.
        """
        contexts = self.prober.contexts(record)
        longest = max(map(len, contexts))
        if longest > self.room:
            detail = f"{longest} tokens, and the model has room for {self.room} beside longshort.max_tokens"
            return Rejected(id=record.id, reason="too long for the model", detail=detail)
        lengths = [len(self.counter.encode(text, add_special_tokens=False)) for text in record.texts]
        await self.prober.prepare(rank, record, contexts)
        rollouts: list[list[Rollout]] = [[] for _ in contexts]

        async def add(prefix: int, count: int) -> None:
            before = len(rollouts[prefix])
            numbers = range(before, before + count)
            rollouts[prefix] += await self.prober.sample(rank, record, prefix, contexts[prefix], numbers)

        wanted = dict.fromkeys(range(len(contexts)), self.settings.samples)
        while wanted:
            await asyncio.gather(*(add(prefix, count) for prefix, count in wanted.items()))
            wanted = {}
            if self.settings.mode == "adaptive":
                wanted = more_rollouts(
                    lengths,
                    _pass_counts(rollouts),
                    confidence=self.settings.confidence,
                    budget=self.settings.budget * len(rollouts),
                    step=self.settings.samples,
                )
        return self._weighed(record, lengths, rollouts)

    def _weighed(self, record: Chunked, lengths: Sequence[int], rollouts: Sequence[Sequence[Rollout]]) -> Weighed:
        start, *after = map(rollout_counts, rollouts)
        importances = thought_importances(lengths, _pass_counts(rollouts))
        thoughts = [
            {
                **thought.to_record(),
                "tokens": length,
                **counts.to_record(),
                "p": counts.rate,
                "p_low": importance.low,
                "p_high": importance.high,
                "m": importance.m,
                "delta": importance.delta,
                "bound": importance.bound,
                "flip": importance.flip,
                "delta_flip": importance.delta_flip,
            }
            for thought, length, counts, importance in zip(record.thoughts, lengths, after, importances, strict=True)
        ]
        return Weighed.model_validate(
            {
                **record.to_record(),
                "thoughts": thoughts,
                "p_start": start,
                "tokenizer": absolute_model(self.settings.tokenizer),
                "model": absolute_model(self.settings.model),
            }
        )


def summary(weighed: Sequence[Weighed], rejects: Sequence[Record], confidence: float) -> dict[str, str]:
    """What the table shows, by name. "Within noise": the decision flips with probability > 1 - confidence."""
    rows = {"chains weighed": str(len(weighed)), "chains set aside": str(len(rejects))}
    if not weighed:
        return rows
    thoughts = [thought for record in weighed for thought in record.thoughts]
    # the first thought is always kept: nothing is decided there
    decided = [thought for record in weighed for thought in record.thoughts[1:]] or thoughts
    starts = [record.p_start for record in weighed]
    rollouts = sum(counts.samples for counts in [*thoughts, *starts])
    kept = sum(int(running_maximum([thought.m for thought in record.thoughts]).sum()) for record in weighed)
    noisy = sum(thought.flip > 1 - confidence for thought in decided)
    ended = _ended_share(weighed)
    wrong_side = statistics.mean(thought.delta_flip for thought in thoughts if thought.delta_flip is not None)
    return rows | {
        "thoughts": f"{len(thoughts)} ({len(thoughts) / len(weighed):.1f} per chain)",
        "rollouts": f"{rollouts} ({rollouts / (len(thoughts) + len(weighed)):.1f} per prefix)",
        "rollouts that ended": "not recorded" if ended is None else f"{ended:.1%}",
        "accuracy without thoughts": f"{statistics.mean(start.rate for start in starts):.3f}",
        "accuracy with all": f"{statistics.mean(record.thoughts[-1].p for record in weighed):.3f}",
        "kept by the running maximum": f"{kept / len(weighed):.2f} per chain",
        "bound on |M - M_opt| (mean)": f"{statistics.mean(thought.bound for thought in thoughts):.2f}",
        f"decisions within noise ({confidence:.0%})": f"{noisy / len(decided):.1%}",
        "delta on the wrong side (expected)": f"{wrong_side:.1%}",
    }


def _pass_counts(rollouts: Sequence[Sequence[Rollout]]) -> list[PassCount]:
    return [PassCount(correct=sum(each.correct for each in some), samples=len(some)) for some in rollouts]
