"""Rollouts from the prefixes of a chain of thought: how a prefix is put before the model, and grading.

A context is the chat prompt of the problem, then the first thoughts of the chain, then words that make the
model answer now (`AnswerPrompt`). One request with the whole chain comes first; an engine with shared prefixes
then finds the beginning of every context in it, and a rollout computes little more than its own tokens.

The requests of all records wait in one queue, those of the earliest unfinished record first: the engine stays full,
and records are finished one after the other.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from longshort_reward import final_answer, match_answer
from longshort_reward.protocol import ANSWER_OPEN
from longshort_reward.settings import Settings

from verl_longshort.base.concurrency import PrioritySemaphore
from verl_longshort.base.files import Record
from verl_longshort.base.seeds import derived_seed
from verl_longshort.core.role_view import Tokenizer, decode_turn, render_prompt
from verl_longshort.core.trajectory import Generate
from verl_longshort.data.records import Chunked, RolloutCounts


class AnswerPrompt(Settings):
    """The block `longshort.joining`: the words between problem, thoughts and answer, with the spaces they need."""

    direct: str
    """Begins the answer where there is no thought before it."""
    open: str
    """Before the first thought."""
    close: str
    """After the last thought of a prefix; begins the answer."""
    stop: str
    """Ends the answer; an answer without it is cut off and counts as incorrect. Empty: the model's end token."""

    def text(self, thoughts: Sequence[str], separator: str) -> str:
        """What stands between the chat prompt and the answer."""
        return f"{self.open}{separator.join(thoughts)}{self.close}" if thoughts else self.direct


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One answer from a prefix."""

    correct: bool
    surprisal: float
    """-log p of the whole answer under the distribution it was sampled from, in nats."""
    ended: bool
    """By the stop string or an end token; not cut off."""
    text: str
    """What the model wrote."""
    answer: str = ""
    """The final answer in it; empty: none."""


def rollout_counts(rollouts: Sequence[Rollout], forced: Sequence[Rollout] = ()) -> RolloutCounts:
    """What a record says of the rollouts from one prefix, and of the forced answers behind it."""
    answers = [rollout.answer for rollout in rollouts]
    counts = {**_counts(rollouts), "answers": answers}
    return RolloutCounts.model_validate({**counts, "forced": _counts(forced)} if forced else counts)


def _counts(rollouts: Sequence[Rollout]) -> Record:
    return {
        "right": sum(rollout.correct for rollout in rollouts),
        "samples": len(rollouts),
        "surprises": [round(rollout.surprisal, 4) for rollout in rollouts],
        "ended": sum(rollout.ended for rollout in rollouts),
        "example": rollouts[0].text,
    }


@dataclass(frozen=True, kw_only=True)
class Prober:
    """Rolls a model out from the prefixes of chains."""

    tokenizer: Tokenizer
    generate: Generate
    queue: PrioritySemaphore
    answer_prompt: AnswerPrompt
    system_prompt: str
    sampling: dict[str, Any]
    """temperature, top_p and max_tokens."""
    seed: int
    answer_timeout_s: float

    def contexts(self, record: Chunked) -> list[list[int]]:
        """Token ids of the contexts of all prefixes, the empty one first: one more than thoughts."""
        prompt = render_prompt(self.tokenizer, self.system_prompt, record.problem)
        texts = [self.answer_prompt.text(record.texts[:n], record.separator) for n in range(len(record.thoughts) + 1)]
        return [prompt + self.tokenizer.encode(text, add_special_tokens=False) for text in texts]

    async def prepare(self, rank: int, record: Chunked, contexts: Sequence[list[int]]) -> None:
        """Let the engine compute the whole chain once. `rank` is the record's place in the queue."""
        async with self.queue.turn(rank):
            await self.generate(
                request_id=f"{record.id}/chain",
                prompt_ids=contexts[-1],
                sampling={**self.sampling, "max_tokens": 1, "temperature": 0.0},
            )

    async def sample(
        self, rank: int, record: Chunked, prefix: int, context: list[int], numbers: range
    ) -> list[Rollout]:
        """The rollouts `numbers` from the prefix of `prefix` thoughts; each is a function of its number."""
        return list(
            await asyncio.gather(*(self._rollout(rank, record, f"{prefix}/{number}", context) for number in numbers))
        )

    async def _rollout(self, rank: int, record: Chunked, name: str, context: list[int]) -> Rollout:
        name = f"{record.id}/{name}"
        stop = [self.answer_prompt.stop] if self.answer_prompt.stop else []
        request = {**self.sampling, "stop": stop, "logprobs": 1, "seed": derived_seed(self.seed, name)}
        async with self.queue.turn(rank):
            made = await self.generate(request_id=name, prompt_ids=context, sampling=request)
        if made.logprobs is None or made.finish_reason == "aborted":
            raise RuntimeError(f"rollout {name}: the engine gave it up, or gave no log-probs")
        # The grader looks for the protocol's tag, which the context has written for the model.
        opening = f"{ANSWER_OPEN} " if ANSWER_OPEN in self.answer_prompt.close else ""
        text = decode_turn(self.tokenizer, made.token_ids)
        ended = made.finish_reason == "stop"
        correct = ended and await asyncio.to_thread(
            match_answer, opening + text, record.ground_truth, timeout_s=self.answer_timeout_s
        )
        answer = (final_answer(opening + text) if ended else None) or ""
        return Rollout(correct=correct, surprisal=-sum(made.logprobs), ended=ended, text=text, answer=answer)
