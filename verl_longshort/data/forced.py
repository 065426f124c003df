"""Forced answers: the model must name the final answer at once, behind each prefix of a chain.

A rollout writes the rest of a solution in its own words, so its surprisal is mostly that of wording. A forced answer
has no words of its own: the context ends inside an open box, and what is counted ends where the box closes. So its
surprisal is that of the answer's tokens; the mean is the entropy of the answers that the model has in mind.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from longshort_reward import match_answer
from longshort_reward.settings import NonNegativeInt, PositiveInt, SettingError, Settings
from pydantic import field_validator

from verl_longshort.base.seeds import derived_seed
from verl_longshort.core.role_view import decode_turn, render_prompt
from verl_longshort.data.records import Chunked
from verl_longshort.data.rollouts import Prober, Rollout

_CLOSE = "}"


class ForcedSettings(Settings):
    """The block `longshort.forced`; each key is documented in `config/weigh.yaml`."""

    samples: NonNegativeInt
    words: str
    max_tokens: PositiveInt

    @field_validator("words")
    @classmethod
    def _leaves_a_box_open(cls, words: str) -> str:
        if not words.endswith("\\boxed{"):
            raise SettingError("", words, r"must end with \boxed{, which the model closes")
        return words


@dataclass(frozen=True, kw_only=True)
class Forcer:
    """Asks for answers at once, with the engine and the queue of the rollouts."""

    prober: Prober
    settings: ForcedSettings

    def contexts(self, record: Chunked) -> list[list[int]]:
        """Token ids of the contexts of all prefixes, the empty one first; none when no answer is asked for."""
        if not self.settings.samples:
            return []
        tokenizer, prompts = self.prober.tokenizer, self.prober.answer_prompt
        chat = render_prompt(tokenizer, self.prober.system_prompt, record.problem)
        texts = [prompts.text(record.texts[:n], record.separator) for n in range(len(record.thoughts) + 1)]
        spaced = [text if not text or text[-1].isspace() else f"{text} " for text in texts]
        # In one piece: a space before a word is part of its token.
        return [chat + tokenizer.encode(text + self.settings.words, add_special_tokens=False) for text in spaced]

    async def sample(self, rank: int, record: Chunked, prefix: int, context: Sequence[int]) -> list[Rollout]:
        """All forced answers behind the prefix of `prefix` thoughts."""
        names = (f"{record.id}/{prefix}/forced/{number}" for number in range(self.settings.samples))
        return list(await asyncio.gather(*(self._answer(rank, record, name, list(context)) for name in names)))

    async def _answer(self, rank: int, record: Chunked, name: str, context: list[int]) -> Rollout:
        ids: list[int] = []
        logprobs: list[float] = []
        text, stopped = "", True
        # A brace inside the answer stops the engine, too: then the answer goes on.
        while stopped and len(ids) < self.settings.max_tokens and not _closed(text):
            request = {
                **self.prober.sampling,
                "max_tokens": self.settings.max_tokens - len(ids),
                "stop": [_CLOSE],
                "logprobs": 1,
                "seed": derived_seed(self.prober.seed, f"{name}/{len(ids)}"),
            }
            async with self.prober.queue.turn(rank):
                made = await self.prober.generate(request_id=name, prompt_ids=context + ids, sampling=request)
            if made.logprobs is None or made.finish_reason == "aborted":
                raise RuntimeError(f"forced answer {name}: the engine gave it up, or gave no log-probs")
            ids += made.token_ids
            logprobs += made.logprobs
            before, text = text, decode_turn(self.prober.tokenizer, ids)
            stopped = made.finish_reason == "stop" and _CLOSE in text[len(before) :]
        ended = _closed(text)
        correct = ended and await asyncio.to_thread(
            match_answer, self.settings.words + text, record.ground_truth, timeout_s=self.prober.answer_timeout_s
        )
        return Rollout(correct=correct, surprisal=-sum(logprobs), ended=ended, text=text)


def _closed(text: str) -> bool:
    """Whether the box that was open before `text` is closed in it."""
    depth = 1
    for character in text.replace("\\{", "").replace("\\}", ""):
        depth += (character == "{") - (character == _CLOSE)
        if depth == 0:
            return True
    return False
