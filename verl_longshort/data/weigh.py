"""The stage `weigh`: how much each thought of a chain matters, by rollouts of a base model from every prefix.

Records and files: `docs/data.md`. All records are under way together, the
earliest first. The command can be killed at any moment and given again: finished records are in the journal, and
what is sampled for a rollout depends on the seed, its record and its number alone.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
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
from verl_longshort.core.trajectory import Generate, Generation
from verl_longshort.data.card import summary_table
from verl_longshort.data.forced import ForcedSettings, Forcer
from verl_longshort.data.importance import PassCount, more_rollouts, thought_importances
from verl_longshort.data.joinings import AUTO, shipped, try_joinings
from verl_longshort.data.records import Chunked, Weighed
from verl_longshort.data.resampling import Resampler, ResampleSettings
from verl_longshort.data.rollouts import AnswerPrompt, Prober, Rollout, rollout_counts
from verl_longshort.data.weigh_summary import summary, warnings
from verl_longshort.engines.factory import EngineSettings, open_engine

_QUEUE = 2  # requests let through per place in the engine, so that a free place is taken at once
_TELL_S = 5.0  # between two reports of rollouts while no chain gets done
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
    joining: AnswerPrompt | Literal["auto"]
    forced: ForcedSettings
    resample: ResampleSettings
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
            "joining": self.joining if isinstance(self.joining, str) else self.joining.model_dump(),
            **({"forced": self.forced.model_dump()} if self.forced.samples else {}),
            **({"resample": self.resample.model_dump()} if self.resample.records else {}),
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
            _work(settings, waiting, journal, console)
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


def _work(
    settings: WeighSettings, waiting: Sequence[tuple[int, Chunked]], journal: RecordFile, console: Console
) -> None:
    from transformers import AutoTokenizer

    try:
        counter: Tokenizer = AutoTokenizer.from_pretrained(settings.tokenizer)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        remedy = f"cannot be loaded ({reason}): give a folder"
        raise UserError("longshort.tokenizer", settings.tokenizer, remedy) from error
    with ExitStack() as stack:
        tokenizer, engine = open_engine(
            settings.model,
            settings,
            max_num_seqs=settings.max_num_seqs,
            seed=settings.seed,
            engines=stack,
            shared_prefixes=True,
        )
        room = engine.max_model_len - settings.max_tokens
        progress = _Progress(done=len(journal.records), total=len(journal.records) + len(waiting))
        prober = Prober(
            tokenizer=tokenizer,
            generate=progress.counted(engine.generate),
            queue=PrioritySemaphore(_QUEUE * settings.max_num_seqs),
            answer_prompt=shipped()["tags"] if isinstance(settings.joining, str) else settings.joining,
            system_prompt=settings.system_prompt,
            sampling=settings.sampling,
            seed=settings.seed,
            answer_timeout_s=settings.answer_timeout_s,
        )

        def keep(outcome: Weighed | Rejected) -> None:
            journal.append(outcome.to_record())
            progress.weighed()

        async def work() -> None:
            own = prober
            if settings.joining == AUTO:
                joining = await _chosen_joining(prober, waiting, journal, room, console)
                own = replace(prober, answer_prompt=joining)
            weigher = Weigher(settings=settings, prober=own, counter=counter, room=room)
            # as many records as places: enough to fill the engine when each has but one request left
            await run_bounded(
                waiting,
                lambda item: weigher.weigh(*item),
                keep,
                limit=settings.max_num_seqs,
                timeout_s=settings.rollout_timeout_s,
            )

        asyncio.run(work())


class _Progress:
    """Chains and rollouts so far, told with every chain and now and then before the next one is done."""

    def __init__(self, *, done: int, total: int) -> None:
        self._done, self._total, self._rollouts = done, total, 0
        self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        report(self._done, self._total, f"{self._done}/{self._total} chains weighed, {self._rollouts} rollouts")

    def weighed(self) -> None:
        """One more chain."""
        self._done += 1
        self._tell()

    def counted(self, generate: Generate) -> Generate:
        """The engine, whose requests are counted."""

        async def one(**request: Any) -> Generation:
            made = await generate(**request)
            self._rollouts += 1
            if time.monotonic() - self._told > _TELL_S:
                self._tell()
            return made

        return one


async def _chosen_joining(
    prober: Prober, waiting: Sequence[tuple[int, Chunked]], journal: RecordFile, room: int, console: Console
) -> AnswerPrompt:
    """That of the records in the journal; without any the one that a trial finds best."""
    for record in journal.records:
        if words := record.get("joining"):
            return AnswerPrompt.model_validate(words)
    trials = await try_joinings(prober, [record for _, record in waiting], room, shipped())
    console.print(
        f"joining {trials[0].name}, by rollouts behind whole chains; {'; '.join(map(str, trials))}",
        highlight=False,
        soft_wrap=True,
    )
    return trials[0].joining


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
        if rank < self.settings.resample.records:
            longest += max(0, self.settings.resample.max_tokens - self.settings.max_tokens)
        if longest > self.room:
            detail = f"{longest} tokens, and the model has room for {self.room} beside longshort.max_tokens"
            return Rejected(id=record.id, reason="too long for the model", detail=detail)
        lengths = [len(self.counter.encode(text, add_special_tokens=False)) for text in record.texts]
        await self.prober.prepare(rank, record, contexts)
        forcer = Forcer(prober=self.prober, settings=self.settings.forced)
        forced = await asyncio.gather(
            *(forcer.sample(rank, record, prefix, context) for prefix, context in enumerate(forcer.contexts(record)))
        )
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
        weighed = self._weighed(record, lengths, rollouts, forced)
        if rank >= self.settings.resample.records:
            return weighed
        resampled = await Resampler(prober=self.prober, settings=self.settings.resample).resample(rank, record)
        content = weighed.to_record()
        for thought, found in zip(content["thoughts"], resampled, strict=True):
            thought["resampled"] = found
        return Weighed.model_validate(content)

    def _weighed(
        self,
        record: Chunked,
        lengths: Sequence[int],
        rollouts: Sequence[Sequence[Rollout]],
        forced: Sequence[Sequence[Rollout]],
    ) -> Weighed:
        start, *after = map(rollout_counts, rollouts, forced or [()] * len(rollouts))
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
                "joining": self.prober.answer_prompt.model_dump(),
            }
        )


def _pass_counts(rollouts: Sequence[Sequence[Rollout]]) -> list[PassCount]:
    return [PassCount(correct=sum(each.correct for each in some), samples=len(some)) for some in rollouts]
