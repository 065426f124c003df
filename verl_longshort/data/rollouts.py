"""Rollouts from the prefixes of a chain of thought: how a prefix is put before the model, and grading.

A context is the chat prompt of the problem, then the first thoughts of the chain, then words that make the
model answer now (`Joining`). One request with the whole chain comes first; an engine with shared prefixes
then finds the beginning of every context in it, and a rollout computes little more than its own tokens.

`Gate` lets the requests of all records through, those of the earliest unfinished record first: the engine
stays full, and records are finished one after the other.
"""

import asyncio
import hashlib
import heapq
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from longshort_reward.protocol import ANSWER_OPEN

from verl_longshort.base.files import Record
from verl_longshort.core.role_view import Tokenizer, decode_turn, render_prompt
from verl_longshort.core.trajectory import Generate


@dataclass(frozen=True, kw_only=True)
class Joining:
    """The words between problem, thoughts and answer, with the spaces they need."""

    direct: str
    """Begins the answer where there is no thought before it."""
    open: str
    """Before the first thought."""
    close: str
    """After the last thought of a prefix; begins the answer."""
    stop: str
    """Ends the answer; an answer without it is cut off and counts as wrong. Empty: the model's end token."""

    def text(self, thoughts: Sequence[str], separator: str) -> str:
        """What stands between the chat prompt and the answer."""
        return f"{self.open}{separator.join(thoughts)}{self.close}" if thoughts else self.direct


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One answer from a prefix."""

    right: bool
    surprise: float
    """-log p of the whole answer under the distribution it was drawn from, in nats."""


@dataclass(kw_only=True)
class Tally:
    """The rollouts from one prefix."""

    rollouts: list[Rollout] = field(default_factory=list)

    @property
    def right(self) -> int:
        """Rollouts that reached the answer."""
        return sum(rollout.right for rollout in self.rollouts)

    @property
    def samples(self) -> int:
        """Rollouts."""
        return len(self.rollouts)


class Gate:
    """At most `capacity` holders at a time; of those who wait, the lowest rank comes next."""

    def __init__(self, capacity: int) -> None:
        self._free = capacity
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()

    @asynccontextmanager
    async def turn(self, rank: int) -> AsyncIterator[None]:
        """Holds a place."""
        if self._free == 0:
            ready = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (rank, next(self._arrivals), ready))
            # the holder who leaves hands its place over, so `_free` stays as it is
            await ready
        else:
            self._free -= 1
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        while self._waiting:
            ready = heapq.heappop(self._waiting)[2]
            if not ready.done():
                ready.set_result(None)
                return
        self._free += 1


@dataclass(frozen=True, kw_only=True)
class Prober:
    """Rolls a model out from the prefixes of chains."""

    tokenizer: Tokenizer
    generate: Generate
    gate: Gate
    joining: Joining
    system_prompt: str
    sampling: dict[str, Any]
    """temperature, top_p and max_tokens."""
    seed: int
    answer_timeout_s: float

    def contexts(self, record: Record) -> list[list[int]]:
        """Token ids of the contexts of all prefixes, the empty one first: one more than thoughts."""
        prompt = render_prompt(self.tokenizer, self.system_prompt, record["problem"])
        thoughts = [thought["text"] for thought in record["thoughts"]]
        return [
            prompt + self._encode(self.joining.text(thoughts[:count], record["separator"]))
            for count in range(len(thoughts) + 1)
        ]

    async def prepare(self, rank: int, record: Record, contexts: Sequence[list[int]]) -> None:
        """Let the engine compute the whole chain once. `rank` is the record's place in the queue."""
        async with self.gate.turn(rank):
            await self.generate(
                request_id=f"{record['id']}/chain",
                prompt_ids=contexts[-1],
                sampling={**self.sampling, "max_tokens": 1, "temperature": 0.0},
            )

    async def sample(self, rank: int, record: Record, prefix: int, context: list[int], numbers: range) -> list[Rollout]:
        """The rollouts `numbers` from the prefix of `prefix` thoughts; each is a function of its number."""
        return list(
            await asyncio.gather(*(self._rollout(rank, record, f"{prefix}/{number}", context) for number in numbers))
        )

    async def _rollout(self, rank: int, record: Record, name: str, context: list[int]) -> Rollout:
        from longshort_reward import match_answer

        name = f"{record['id']}/{name}"
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        stop = [self.joining.stop] if self.joining.stop else []
        request = {**self.sampling, "stop": stop, "logprobs": 1, "seed": int.from_bytes(digest[:7], "big")}
        async with self.gate.turn(rank):
            made = await self.generate(request_id=name, prompt_ids=context, sampling=request)
        if made.logprobs is None or made.finish_reason == "aborted":
            raise RuntimeError(f"rollout {name}: the engine gave it up, or gave no log-probs")
        text = self._opening() + decode_turn(self.tokenizer, made.token_ids)
        right = made.finish_reason == "stop" and await asyncio.to_thread(
            match_answer, text, record["ground_truth"], timeout_s=self.answer_timeout_s
        )
        return Rollout(right=right, surprise=-sum(made.logprobs))

    def _opening(self) -> str:
        """The protocol's tag that the context has written for the model, which the grader looks for."""
        return f"{ANSWER_OPEN} " if ANSWER_OPEN in self.joining.close else ""

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)
