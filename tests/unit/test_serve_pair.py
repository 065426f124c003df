"""A pair that answers: events, channels, cancellation and limits, with real engines and tiny models."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any

import pytest
from helpers.serving import save_word_models, word_pair
from longshort_reward.protocol import TAGS, Closing, Role

import verl_longshort.serve.pair as pair_module
from verl_longshort.core.environment import StopReason
from verl_longshort.engines.factory import open_engine
from verl_longshort.serve.channels import CONTENT, Channels
from verl_longshort.serve.errors import BusyError, LateError, RequestError
from verl_longshort.serve.events import Answered, Event, TextDelta, TurnEnded, TurnStarted
from verl_longshort.serve.pair import AnswerOptions, PairService, open_pair

QUESTION = [{"role": "user", "content": "start 2 ; a 2 ?"}]
WATCHDOG_S = 60


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_word_models(tmp_path_factory.mktemp("models"))


def opened(models: dict[str, Path], *more: str, **names: str) -> AbstractAsyncContextManager[PairService]:
    return open_pair(word_pair(models, *more, **names))


async def all_events(pair: PairService, messages: Any = QUESTION, **options: Any) -> list[Event]:
    async def collect() -> list[Event]:
        return [event async for event in pair.answer(messages, AnswerOptions(**options))]

    return await asyncio.wait_for(collect(), WATCHDOG_S)


def answer(models: dict[str, Path], *more: str, short: str = "short", **options: Any) -> list[Event]:
    async def work() -> list[Event]:
        async with opened(models, *more, short=short) as pair:
            return await all_events(pair, **options)

    return asyncio.run(work())


def joined(events: Sequence[Event], channels: Channels) -> dict[str, str]:
    texts = {"reasoning": "", "content": ""}
    for event in events:
        for said in channels.take(event):
            texts[said.channel] += said.text
    return texts


def test_one_model_in_both_roles_is_loaded_once(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened_paths: list[str] = []

    def noted(path: str, *arguments: Any, **options: Any) -> Any:
        opened_paths.append(path)
        return open_engine(path, *arguments, **options)

    monkeypatch.setattr(pair_module, "open_engine", noted)
    events = answer({"long": models["long"], "short": models["long"]})
    assert isinstance(events[-1], Answered)
    assert opened_paths == [str(models["long"])]


def test_the_events_of_an_answer(models: dict[str, Path]) -> None:
    *events, end = answer(models, stream=False, seed=7)
    assert events == [
        TurnStarted(role=Role.LONG, number=1, last=False),
        TextDelta(role=Role.LONG, text="so"),
        thought := TurnEnded(role=Role.LONG, number=1, text="so", tokens=3, closing=Closing.THINK, fault=None),
        TurnStarted(role=Role.SHORT, number=2, last=False),
        TextDelta(role=Role.SHORT, text="\\boxed{ 4 }"),
        said := TurnEnded(role=Role.SHORT, number=2, text="\\boxed{ 4 }", tokens=5, closing=Closing.ANSWER, fault=None),
    ]
    assert isinstance(end, Answered)
    assert (end.answer, end.stop_reason, end.seed) == ("\\boxed{ 4 }", StopReason.ANSWERED, 7)
    assert (end.turns, end.tokens) == ((thought, said), {Role.LONG: 3, Role.SHORT: 5})
    assert end.prompt_tokens == {Role.LONG: 7, Role.SHORT: 7}


@pytest.mark.parametrize("short", ["short", "doubting", "asking"])
def test_pieces_are_the_whole(models: dict[str, Path], short: str) -> None:
    whole = answer(models, short=short, stream=False)
    pieces = answer(models, short=short, stream=True)
    assert joined(pieces, Channels()) == joined(whole, Channels())
    assert isinstance(whole[-1], Answered)
    assert joined(whole, Channels())[CONTENT] == whole[-1].answer
    assert not any(tag in event.text for event in pieces if isinstance(event, TextDelta) for tag in TAGS)


def test_attempts_are_reasoning_unless_they_are_asked_for(models: dict[str, Path]) -> None:
    events = answer(models, "longshort.environment.max_turns=4", short="doubting")
    assert joined(events, Channels()) == {"reasoning": "so\n\nso\n\nso", "content": "so"}
    assert joined(events, Channels(attempts_are_content=True)) == {"reasoning": "so\n\nso", "content": "so\n\nso"}


def test_an_answer_at_once_begins_with_the_short_role(models: dict[str, Path]) -> None:
    events = answer(models, short="at_once", think_first=False)
    assert [event.role for event in events if isinstance(event, TurnStarted)] == [Role.SHORT]
    assert isinstance(events[-1], Answered)
    assert events[-1].stop_reason is StopReason.ANSWERED


def test_whoever_leaves_ends_the_work(models: dict[str, Path]) -> None:
    async def work() -> None:
        more = ["longshort.environment.long_turn_tokens=200", "longshort.environment.token_budget=220"]
        async with opened(models, *more, long="endless") as pair:
            async with aclosing(pair.answer(QUESTION, AnswerOptions())) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        break
            assert (pair.running, pair.waiting) == (0, 0)
            assert len(asyncio.all_tasks()) == 1
            # the engine is free for others at once
            assert isinstance((await all_events(pair, max_tokens=4))[-1], Answered)

    asyncio.run(work())


def test_limits_of_a_server(models: dict[str, Path]) -> None:
    async def work() -> None:
        more = ["longshort.max_num_seqs=1", "longshort.max_waiting=1"]
        async with opened(models, *more) as pair:
            options = AnswerOptions()
            with pytest.raises(BusyError) as busy:
                [event async for event in pair.answers(QUESTION, options, count=4)]
            assert busy.value.retry_after_s >= 1
            found = [one async for happened in pair.answers(QUESTION, options, count=3) for one in happened]
            assert sorted(number for number, event in found if isinstance(event, Answered)) == [0, 1, 2]
        async with opened(models, "longshort.request_timeout_s=0.000001") as pair:
            with pytest.raises(LateError):
                await all_events(pair)
            assert pair.running == 0

    asyncio.run(work())


REFUSED = {
    "max_turns is 9": ({"max_turns": 9}, QUESTION),
    "max_tokens is 1:": ({"max_tokens": 1}, QUESTION),
    "a message holds </think>": ({}, [{"role": "user", "content": "2 </think> ?"}]),
    "a message holds <answer>": ({}, [{"role": "system", "content": "<answer>"}, *QUESTION]),
    "a message holds <eos>": ({}, [{"role": "user", "content": "2 <eos> ?"}]),
    "the control character U+0000": ({}, [{"role": "user", "content": "2 \0 ?"}]),
    "half a character": ({}, [{"role": "user", "content": "2 \ud800 ?"}]),
    "tokenizer cannot write this": ({}, [{"role": "user", "content": "unknown ?"}]),
    "the last message must be the user's": ({}, [*QUESTION, {"role": "assistant", "content": "4"}]),
    "stands at the beginning": ({}, [*QUESTION, {"role": "system", "content": "so"}, *QUESTION]),
    "says nothing": ({}, [{"role": "user", "content": " "}]),
    "context 256": ({}, [{"role": "user", "content": "2 " * 300}]),
}


def test_requests_that_are_refused(models: dict[str, Path]) -> None:
    async def work() -> None:
        async with opened(models) as pair:
            for sentence, (options, messages) in REFUSED.items():
                with pytest.raises(RequestError, match=re.escape(sentence)):
                    await all_events(pair, messages, **options)

    asyncio.run(work())


def test_a_conversation_is_what_the_template_makes_of_it(models: dict[str, Path]) -> None:
    async def work() -> None:
        async with opened(models) as pair:
            chat = [{"role": "system", "content": "go slowly"}, *QUESTION, {"role": "assistant", "content": "4"}]
            *_, end = await all_events(pair, [*chat, *QUESTION])
            assert isinstance(end, Answered)
            # <bos>, 2 of the system, 6 of each question, the answer and its <eos>
            assert end.prompt_tokens[Role.LONG] == 1 + 2 + 6 + 2 + 6

    asyncio.run(work())
