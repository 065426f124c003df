"""Counterfactual resampling: what becomes of the answer when the model writes another thought in a thought's place.

As in Thought Anchors (arXiv 2506.19143): the model goes on from the prefix before a thought, in its own words and to
the end. Where it does not write that thought again, the answers are compared with those of going on from behind the
thought. A thought that changes what the model answers matters, also one whose content later thoughts repeat: they are
resampled with it. It is dear, since each continuation is a chain of its own, so `weigh` does it for the first
`longshort.resample.records` records only; no rule uses it.
"""

import asyncio
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from longshort_reward import final_answer, match_answer
from longshort_reward.settings import NonNegativeInt, PositiveInt, Settings

from verl_longshort.base.files import Record
from verl_longshort.base.seeds import derived_seed
from verl_longshort.core.role_view import decode_turn, render_prompt
from verl_longshort.data.records import Chunked
from verl_longshort.data.rollouts import Prober

SAME = 0.6
"""Share of words in common from which on a thought counts as written again."""
_SMOOTHING = 0.5
_WORD = re.compile(r"\w+")


class ResampleSettings(Settings):
    """The block `longshort.resample`; each key is documented in `config/weigh.yaml`."""

    records: NonNegativeInt
    samples: PositiveInt
    max_tokens: PositiveInt


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """One way on from a prefix."""

    text: str
    answer: str
    """The final answer in it; empty: none."""
    correct: bool


@dataclass(frozen=True, kw_only=True)
class Resampler:
    """Lets the model go on from the prefixes of a chain, with the engine and the queue of the rollouts."""

    prober: Prober
    settings: ResampleSettings

    def contexts(self, record: Chunked) -> list[list[int]]:
        """Token ids of the contexts of all prefixes, the empty one first: the chain is open behind each."""
        tokenizer = self.prober.tokenizer
        chat = render_prompt(tokenizer, self.prober.system_prompt, record.problem)
        starts = [record.texts[:n] for n in range(len(record.thoughts) + 1)]
        texts = ["".join(f"{text}{record.separator}" for text in start) for start in starts]
        opening = self.prober.answer_prompt.open
        return [chat + tokenizer.encode(opening + text, add_special_tokens=False) for text in texts]

    async def resample(self, rank: int, record: Chunked) -> list[Record]:
        """What the continuations say of each thought; see `compare`."""
        names = [
            [f"{record.id}/{prefix}/on/{number}" for number in range(self.settings.samples)]
            for prefix in range(len(record.thoughts) + 1)
        ]
        contexts = self.contexts(record)
        behind = await asyncio.gather(
            *(
                asyncio.gather(*(self._continue(rank, record, name, context) for name in some))
                for some, context in zip(names, contexts, strict=True)
            )
        )
        return [compare(text, behind[n], behind[n + 1]) for n, text in enumerate(record.texts)]

    async def _continue(self, rank: int, record: Chunked, name: str, context: list[int]) -> Continuation:
        joining = self.prober.answer_prompt
        request = {
            **self.prober.sampling,
            "max_tokens": self.settings.max_tokens,
            "stop": [joining.stop] if joining.stop else [],
            "seed": derived_seed(self.prober.seed, name),
        }
        async with self.prober.queue.turn(rank):
            made = await self.prober.generate(request_id=name, prompt_ids=context, sampling=request)
        if made.finish_reason == "aborted":
            raise RuntimeError(f"continuation {name}: the engine gave it up")
        text = decode_turn(self.prober.tokenizer, made.token_ids)
        whole = joining.open + text
        ended = made.finish_reason == "stop"
        correct = ended and await asyncio.to_thread(
            match_answer, whole, record.ground_truth, timeout_s=self.prober.answer_timeout_s
        )
        return Continuation(text=text, answer=(final_answer(whole) if ended else None) or "", correct=correct)


def compare(thought: str, before: Sequence[Continuation], behind: Sequence[Continuation]) -> Record:
    """A thought by the continuations from `before` it and from `behind` it.

    `different` of the `samples` before it wrote another thought; `divergence` is how far the answers behind it are from
    theirs (Kullback-Leibler, in nats, half a count added to each answer), `gain` the difference of the accuracies. Both
    are None where no continuation wrote another thought.
    """
    others = [each for each in before if not _same(thought, each.text)]
    known: Record = {"different": len(others), "samples": len(before), "divergence": None, "gain": None}
    if not others:
        return known
    kept, other = (Counter(each.answer for each in some) for some in (behind, others))
    named = kept | other
    total, total_other = (count.total() + _SMOOTHING * len(named) for count in (kept, other))
    divergence = 0.0
    for answer in named:
        share, share_other = (kept[answer] + _SMOOTHING) / total, (other[answer] + _SMOOTHING) / total_other
        divergence += share * math.log(share / share_other)
    right, right_other = (sum(each.correct for each in some) / len(some) for some in (behind, others))
    return {**known, "divergence": round(divergence, 4), "gain": round(right - right_other, 4)}


def _same(thought: str, text: str) -> bool:
    """Whether `text` begins with the thought, more or less."""
    words = _WORD.findall(thought.casefold())
    begun = set(_WORD.findall(text.casefold())[: len(words)])
    union = set(words) | begun
    return not union or len(set(words) & begun) / len(union) >= SAME
