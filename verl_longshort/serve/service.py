"""Answers of a pair as events: places for so many at once, limits, failures. Guide: `serve/pair.py`."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from longshort_reward.protocol import Role, RolePrompts

from verl_longshort.base.errors import UnavailableError
from verl_longshort.base.seeds import derived_seed
from verl_longshort.core.environment import Environment, Limits, StopReason
from verl_longshort.core.role_view import Message, RoleView
from verl_longshort.core.trajectory import Participant, run_trajectory
from verl_longshort.engines.sampling_params import TooLongError
from verl_longshort.llm.client import RefusedError
from verl_longshort.serve.conversation import Conversation, PromptGuard
from verl_longshort.serve.errors import BusyError, EngineError, LateError, RequestError, ServeError
from verl_longshort.serve.events import Answered, Event, TextDelta
from verl_longshort.serve.narrator import Narrator

_LOG = logging.getLogger(__name__)
_LONG_TEXT = 16_384  # characters that are read on a thread, so that other answers go on

# words that the vocabulary of the miniature world has, too
_SAMPLE = ({"role": "user", "content": "2 + 3 ?"},)

SEED_BITS = 53
"""Of the seed of a request that brings none: JSON's numbers are exact up to there."""


_Queue: TypeAlias = "asyncio.Queue[tuple[int, Event | BaseException]]"
"""What happened to answers, by their number: an event or a failure."""


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """How one answer is made. None: as the settings say."""

    max_turns: int | None = None
    """Turns of both roles, at least 2 and at most as many as the settings allow."""
    max_tokens: int | None = None
    """Tokens of both roles together, at least 2 and at most as many as the settings allow."""
    think_first: bool = True
    """False: the short role begins ("answer at once"), which may still ask for a thought. Nothing is trained so."""
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    """None: a new one each time."""
    stream: bool = True
    """Whether the text of a turn comes in pieces, or as one delta at its end."""


class PairService:
    """Two participants and the limits of a request. Belongs to one event loop.

    Args:
        participants: the models.
        limits: how far an answer may go.
        prompts: the roles' system prompts.
        template: how a user's message is put to the models; `{problem}` stands for it.
        sampling: temperature and top_p of requests that bring none.
        at_once: answers under way; further ones wait.
        may_wait: answers that may wait; further ones are refused.
        timeout_s: seconds that an answer may take, waiting included.
    """

    def __init__(
        self,
        participants: Mapping[Role, Participant],
        *,
        limits: Limits,
        prompts: RolePrompts,
        template: str = "{problem}",
        sampling: Mapping[str, float],
        at_once: int,
        may_wait: int,
        timeout_s: float,
    ) -> None:
        self.limits = limits
        self.failure: str | None = None
        """Why the engines failed when they were last asked; None: they did not."""
        self.participants = participants
        self._prompts = prompts
        self._template = template
        self._sampling = dict(sampling)
        # those of requests that do not stream
        self._whole = {role: replace(participant, stream=None) for role, participant in participants.items()}
        self._guards = {role: PromptGuard(role, one, prompts) for role, one in participants.items()}
        self._reading = asyncio.Lock()
        self._places = asyncio.Semaphore(at_once)
        self._at_once, self._may_wait = at_once, may_wait
        self._timeout_s = timeout_s
        self._present = 0
        self._mean_s = 1.0

    @property
    def running(self) -> int:
        """Answers under way."""
        return min(self._present, self._at_once)

    @property
    def waiting(self) -> int:
        """Answers that wait for a place."""
        return self._present - self.running

    async def answer(self, messages: Sequence[Message], options: AnswerOptions) -> AsyncGenerator[Event, None]:
        """The events of one answer; see the module."""
        async with aclosing(self.answers(messages, options, count=1)) as events:
            async for happened in events:
                for _, event in happened:
                    yield event

    async def answers(
        self, messages: Sequence[Message], options: AnswerOptions, *, count: int
    ) -> AsyncGenerator[list[tuple[int, Event]], None]:
        """The events of `count` answers to the same messages, each with the number of its answer, from 0 on.

        Those that have happened since the caller last asked come together, and what was written of one turn meanwhile
        as one `TextDelta`. The first answer has the seed of the options, the others seeds derived from it.
        """
        limits = self._limits(options)
        conversation = Conversation.of(messages, self._template)
        views = [await self._views(conversation)]
        if self._present + count > self._at_once + self._may_wait:
            rounds = (self._present + count) / self._at_once
            raise BusyError(
                f"{self.running} answers are under way and {self.waiting} wait, which is as many as may",
                retry_after_s=max(1, round(self._mean_s * rounds)),
            )
        seed = secrets.randbits(SEED_BITS) if options.seed is None else options.seed
        seeds = [seed, *(derived_seed(seed, str(number)) for number in range(1, count))]
        happened: _Queue = asyncio.Queue()
        views += [self._views_now(conversation) for _ in range(1, count)]
        tasks = [
            self._begun(self._one(number, views[number], conversation.problem, limits, options, seed, happened))
            for number, seed in enumerate(seeds)
        ]
        late = LateError(f"not answered within {self._timeout_s:g} s: ask for fewer tokens or turns", code="timeout")
        timer = asyncio.get_running_loop().call_later(self._timeout_s, happened.put_nowait, (0, late))
        try:
            while count:
                events, failure = _ready(await happened.get(), happened)
                count -= sum(isinstance(event, Answered) for _, event in events)
                if events:
                    yield events
                if failure is not None:
                    raise self._told(failure)
        finally:
            timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def works(self, timeout_s: float) -> bool:
        """Whether both models answer now: each is asked for two tokens."""
        for think_first in (True, False):
            options = AnswerOptions(max_turns=2, max_tokens=2, think_first=think_first, stream=False)
            try:
                async with aclosing(self.answer(_SAMPLE, options)) as events:
                    while await asyncio.wait_for(anext(events, None), timeout_s) is not None:
                        pass
            except (ServeError, asyncio.TimeoutError):
                return False
        return True

    def _begun(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """A task that counts as present until it is done, however it ends."""

        def left(_: object) -> None:
            self._present -= 1

        task = asyncio.create_task(work)
        self._present += 1
        task.add_done_callback(left)
        return task

    async def _one(
        self,
        number: int,
        views: Mapping[Role, RoleView],
        problem: str,
        limits: Limits,
        options: AnswerOptions,
        seed: int,
        happened: "_Queue",
    ) -> None:
        """One answer, whose events and failure go to `happened`."""
        started = time.monotonic()
        narrator = Narrator(lambda event: happened.put_nowait((number, event)), limits.max_turns)
        sampling = {
            "temperature": self._sampling["temperature"] if options.temperature is None else options.temperature,
            "top_p": self._sampling["top_p"] if options.top_p is None else options.top_p,
            "seed": seed,
        }
        try:
            async with self._places:
                begun = time.monotonic()
                trajectory = await run_trajectory(
                    problem,
                    self.participants if options.stream else self._whole,
                    Environment(limits),
                    self._prompts,
                    sampling,
                    views=views,
                    first=Role.LONG if options.think_first else Role.SHORT,
                    watcher=narrator,
                )
                self._mean_s += 0.1 * (time.monotonic() - begun - self._mean_s)
            if trajectory.state.stop_reason is StopReason.ABORTED:
                raise UnavailableError("an engine gave up a turn")
        except Exception as error:
            happened.put_nowait((number, error))
            return
        self.failure = None
        happened.put_nowait((number, narrator.answered(trajectory, seed, time.monotonic() - started)))

    def _limits(self, options: AnswerOptions) -> Limits:
        wanted = {"max_turns": options.max_turns, "token_budget": options.max_tokens}
        given = {key: value for key, value in wanted.items() if value is not None}
        for key, value in given.items():
            most = getattr(self.limits, key)
            if not 2 <= value <= most:
                name = "max_tokens" if key == "token_budget" else key
                raise RequestError(f"{name} is {value}: give a number from 2 (a turn each) to {most}", param=name)
        return self.limits.model_copy(update=given)

    async def _views(self, conversation: Conversation) -> dict[Role, RoleView]:
        """Of both roles. Raises RequestError for a conversation that cannot or must not be put to the models."""
        if sum(map(len, conversation.texts)) > _LONG_TEXT:
            async with self._reading:
                for guard in self._guards.values():
                    await asyncio.to_thread(guard.view, conversation, apart=True)
        return self._views_now(conversation)

    def _views_now(self, conversation: Conversation) -> dict[Role, RoleView]:
        return {role: guard.view(conversation) for role, guard in self._guards.items()}

    def _told(self, error: BaseException) -> BaseException:
        """What whoever asked is told of a failure; the log has the rest."""
        if isinstance(error, ServeError):
            return error
        if isinstance(error, TooLongError | RefusedError):
            return RequestError(f"a model refused the request: {error}", param="messages")
        _LOG.error("an answer failed", exc_info=error)
        self.failure = f"{type(error).__name__}: {error}"
        return EngineError("a model of the pair does not work at present; the server's log says why", code="engine")


def _ready(
    first: tuple[int, Event | BaseException], more: _Queue
) -> tuple[list[tuple[int, Event]], BaseException | None]:
    """What has happened by now, up to the first failure. Neighbouring texts of one answer are one."""
    events: list[tuple[int, Event]] = []
    newest: dict[int, int] = {}
    number, event = first
    while not isinstance(event, BaseException):
        place = newest.get(number)
        before = None if place is None else events[place][1]
        if place is not None and isinstance(event, TextDelta) and isinstance(before, TextDelta):
            # neighbours are of one turn: turns are parted by events of their own
            events[place] = number, TextDelta(role=event.role, text=before.text + event.text)
        else:
            newest[number] = len(events)
            events.append((number, event))
        if more.empty():
            return events, None
        number, event = more.get_nowait()
    return events, event
