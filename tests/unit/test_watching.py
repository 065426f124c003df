"""Watching a trajectory: text out of pieces, engines that stream, and endpoints that do."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from fastapi.responses import StreamingResponse
from helpers.engines import WATCHDOG_S, build_engine, build_model, run
from helpers.llm_server import Respond, failure, in_turn, serve
from helpers.tiny_tokenizers import byte_level, normalising, word_level
from hypothesis import example, given
from hypothesis import strategies as st
from longshort_reward.protocol import TAG_PATTERN, TAGS, Role, parse_turn

from verl_longshort.base.errors import UnavailableError
from verl_longshort.core.role_view import decode_turn
from verl_longshort.core.watching import TextStream
from verl_longshort.engines.transformers_engine import TransformersEngine
from verl_longshort.llm.endpoint import CompletionEndpoint
from verl_longshort.llm.server import Server
from verl_longshort.serve.reading import TurnReader

PIECES = st.lists(st.sampled_from([*TAGS, "<", ">", "</", "think>", "a", " b ", "\n", "é", "😀", "Ω"]), max_size=12)
CUTS = st.lists(st.integers(1, 5), min_size=1, max_size=60)


def cut(items: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    pieces, start, number = [], 0, 0
    while start < len(items):
        size = sizes[number % len(sizes)]
        pieces.append(items[start : start + size])
        start, number = start + size, number + 1
    return pieces


@given(PIECES.map("".join), CUTS)
@example("😀😀", [1])
def test_text_in_pieces_is_the_text(text: str, sizes: list[int]) -> None:
    for tokenizer in (byte_level(), normalising(), word_level()):
        ids = tokenizer.encode(text, add_special_tokens=False)
        stream = TextStream(tokenizer)
        assert "".join(stream.add(piece) for piece in cut(ids, sizes)) == decode_turn(tokenizer, ids)


@given(st.sampled_from(list(Role)), PIECES.map("".join), CUTS)
@example(Role.LONG, "<think>a <think", [1])
@example(Role.SHORT, "<answer> 4 </answer>", [3])
@example(Role.SHORT, "<answer><<<think>", [1])
def test_a_turn_in_pieces_is_the_turn_and_holds_no_tag(role: Role, text: str, sizes: list[int]) -> None:
    reader, whole = TurnReader(role), TurnReader(role)
    shown = "".join(reader.feed(piece) for piece in cut(text, sizes))
    turn = parse_turn(role, text)
    # the closing tag says that nothing more comes: nothing is held back for the end
    assert not turn.ok or shown == turn.body
    assert shown + reader.finish(turn.text) == reader.text == whole.finish(turn.text)
    assert not turn.ok or reader.text == turn.body
    # as the protocol reads it: `<<think>` is no tag
    assert TAG_PATTERN.search(reader.text) is None


@pytest.mark.parametrize("count", [1, 30])
def test_an_engine_streams_what_it_generates(count: int) -> None:
    with build_engine(build_model()) as engine:
        pieces: list[list[Sequence[int]]] = [[] for _ in range(count)]
        asked: dict[str, Any] = {"prompt_ids": [3, 4, 5], "sampling": {"max_tokens": 60, "ignore_eos": True, "seed": 4}}

        async def work() -> tuple[list[Any], Any]:
            streaming = [engine.stream(request_id="a", **asked, on_piece=one.append) for one in pieces]
            made = await asyncio.wait_for(asyncio.gather(*streaming), WATCHDOG_S)
            return made, await engine.generate(request_id="b", **asked)

        streamed, whole = run(work())
        for made, told in zip(streamed, pieces, strict=True):
            assert made.token_ids == whole.token_ids == [token for piece in told for token in piece]


def test_a_stream_that_is_left_leaves_the_batch() -> None:
    with build_engine(build_model()) as engine:

        async def work() -> None:
            asked: dict[str, Any] = {"prompt_ids": [3, 4], "sampling": {"max_tokens": 200, "ignore_eos": True}}
            begun = asyncio.Event()
            task = asyncio.ensure_future(engine.stream(request_id="a", **asked, on_piece=lambda piece: begun.set()))
            await asyncio.wait_for(begun.wait(), WATCHDOG_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(idle(engine), WATCHDOG_S)
            assert engine.stats["generated_tokens"] < 200

        run(work())


async def idle(engine: TransformersEngine) -> None:
    while engine.stats["running"] or engine.stats["waiting"]:
        await asyncio.sleep(0.01)


def events(*texts: str, end: bool = True, broken: bool = False) -> StreamingResponse:
    async def sent() -> AsyncIterator[bytes]:
        for text in texts:
            yield _event({"choices": [{"text": text, "finish_reason": None, "stop_reason": None}]})
        if broken:
            yield b"data: {\n\n"
        if end:
            yield _event({"choices": [{"text": "", "finish_reason": "stop", "stop_reason": "</think>"}]})
            yield _event({"choices": [], "usage": {"completion_tokens": 7}})
            yield b"data: [DONE]\n\n"

    return StreamingResponse(sent(), media_type="text/event-stream")


def _event(content: Any) -> bytes:
    return b": a comment\n\ndata: " + json.dumps(content).encode() + b"\n\n"


def ask(respond: Respond, attempts: int = 2) -> tuple[Any, list[str]]:
    async def work(url: str) -> tuple[Any, list[str]]:
        pieces: list[str] = []
        server = Server(url, concurrency=1, timeout_s=20, attempts=attempts, backoff_s=0.001, key="longshort.endpoint")
        sampling = {"stop": ["</think>"], "max_tokens": 9, "seed": 1}
        try:
            made = await CompletionEndpoint(server, "model").stream(
                request_id="a", prompt_ids=[1], sampling=sampling, on_piece=pieces.append
            )
        finally:
            await server.aclose()
        return made, pieces

    with serve(respond) as endpoint:
        return run(work(endpoint.url))


def test_an_endpoint_streams_and_is_asked_again_until_it_begins() -> None:
    made, pieces = ask(in_turn([failure(503), events("<think>", " so")]))
    assert pieces == ["<think>", " so"]
    # the server left the stop string out and said which it was
    assert (made.text, made.tokens, made.finish_reason) == ("<think> so</think>", 7, "stop")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (events("<think>", broken=True), "the reply broke off"),
        (events("<think>", end=False), "does not count tokens"),
        (events(end=False), "an empty reply"),
        (failure(503), "status 503"),
        (failure(404), "status 404"),
    ],
    ids=["broken", "no end", "empty", "failing", "unknown"],
)
def test_an_endpoint_that_fails_is_told(reply: Any, message: str) -> None:
    with pytest.raises(UnavailableError, match=message):
        ask(in_turn([reply]), attempts=1)
