"""Both back ends of the LLM client: against a real HTTP server, and on the engine with a real tiny model."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from fastapi.responses import JSONResponse
from helpers.engines import build_engine, build_model
from helpers.llm_server import Body, Endpoint, completion, cut, failure, in_turn, serve
from helpers.tiny_tokenizers import word_level
from longshort_reward.errors import UserError

from verl_longshort.base.errors import UnavailableError
from verl_longshort.llm.client import ChatSampling, LLMClient, RefusedError, Reply
from verl_longshort.llm.endpoint import EndpointClient
from verl_longshort.llm.in_process import EngineClient
from verl_longshort.llm.settings import LLMSettings
from verl_longshort.llm.task_client import BadReplyError, NoReplyError, ResponseCache, TaskClient

ASK = [{"role": "user", "content": "a + b = 1"}]
SAMPLING = ChatSampling(max_tokens=8, temperature=0.7, seed=5)


def client(endpoint: Endpoint, **options: Any) -> EndpointClient:
    given = {"concurrency": 4, "timeout_s": 5, "attempts": 3, "backoff_s": 0.001, **options}
    return EndpointClient(endpoint.url, model="tiny", **given)


def ask(endpoint: Endpoint, sampling: ChatSampling = SAMPLING, **options: Any) -> list[Reply]:
    async def work() -> list[Reply]:
        asked = client(endpoint, **options)
        try:
            return await asked.ask(ASK, sampling)
        finally:
            await asked.aclose()

    return asyncio.run(work())


def test_a_request_and_its_reply() -> None:
    with serve(in_turn([completion("so a = 1")])) as endpoint:
        assert ask(endpoint, api_key="secret") == [Reply(text="so a = 1", finish_reason="stop", tokens=3)]
    assert endpoint.keys == ["Bearer secret"]
    assert endpoint.bodies == [
        {
            "model": "tiny",
            "messages": ASK,
            "temperature": 0.7,
            "top_p": 1.0,
            "max_tokens": 8,
            "n": 1,
            "seed": 5,
        }
    ]


PASSING = {
    "busy": failure(429),
    "broken": failure(500),
    "starting": failure(503),
    "cut": cut(),
    "not JSON": Response("<html>", media_type="text/html"),
    "half a JSON": Response('{"choices": [{"mess', media_type="application/json"),
    "no choices": JSONResponse({"choices": []}),
    "another shape": JSONResponse({"choices": [{"text": "a"}]}),
}


@pytest.mark.parametrize("response", PASSING.values(), ids=PASSING.keys())
def test_what_passes_is_asked_again(response: Response) -> None:
    with serve(in_turn([response, response, completion("yes")])) as endpoint:
        assert ask(endpoint)[0].text == "yes"
    assert len(endpoint.bodies) == 3


@pytest.mark.parametrize("response", PASSING.values(), ids=PASSING.keys())
def test_what_does_not_pass_is_an_error_with_its_reason(response: Response) -> None:
    with serve(in_turn([response])) as endpoint, pytest.raises(UnavailableError, match="attempt 3 of 3"):
        ask(endpoint)
    assert len(endpoint.bodies) == 3


def test_a_slow_reply_is_given_up_and_asked_again() -> None:
    async def respond(body: Body) -> Response:
        if len(endpoint.bodies) == 1:
            await asyncio.sleep(3)
        return completion("late" if len(endpoint.bodies) == 1 else "in time")

    with serve(respond) as endpoint:
        begin = time.monotonic()
        assert ask(endpoint, timeout_s=0.5)[0].text == "in time"
        assert time.monotonic() - begin < 3
        with pytest.raises(UnavailableError, match=r"no complete reply within 1e-06 s"):
            ask(endpoint, timeout_s=0.000001, attempts=1)


def test_the_wait_that_the_server_asks_for_is_kept() -> None:
    with serve(in_turn([failure(429, retry_after="0.4"), completion("yes")])) as endpoint:
        begin = time.monotonic()
        ask(endpoint)
        assert time.monotonic() - begin >= 0.4


@pytest.mark.parametrize(("status", "error"), [(400, RefusedError), (413, RefusedError), (401, UnavailableError)])
def test_what_will_not_pass_is_not_asked_again(status: int, error: type[Exception]) -> None:
    with serve(in_turn([failure(status)])) as endpoint, pytest.raises(error, match=f"status {status}: no"):
        ask(endpoint)
    assert len(endpoint.bodies) == 1


def test_no_server_is_an_error() -> None:
    with pytest.raises(UnavailableError, match="ConnectError"):
        ask(Endpoint("http://127.0.0.1:9/v1"))


def test_samples_come_also_from_a_server_that_gives_one_at_a_time() -> None:
    async def respond(body: Body) -> Response:
        return completion(str(body["seed"]))

    with serve(respond) as endpoint:
        replies = ask(endpoint, replace(SAMPLING, samples=3))
    assert [reply.text for reply in replies] == ["5", "6", "7"]
    assert [body["n"] for body in endpoint.bodies] == [3, 2, 1]


def test_tokens_of_several_samples_are_not_known() -> None:
    with serve(in_turn([completion("a", "b")])) as endpoint:
        assert [reply.tokens for reply in ask(endpoint, replace(SAMPLING, samples=2))] == [None, None]


def test_a_cut_or_empty_reply_says_so() -> None:
    nothing = JSONResponse({"choices": [{"message": {"content": None}, "finish_reason": "length"}]})
    with serve(in_turn([completion("half", finish_reason="length"), nothing])) as endpoint:
        (half,), (empty,) = ask(endpoint), ask(endpoint)
    assert (half.text, half.complete) == ("half", False)
    assert (empty.text, empty.complete) == ("", False)


def test_requests_under_way_are_bounded() -> None:
    async def respond(body: Body) -> Response:
        await asyncio.sleep(0.02)
        return completion("yes")

    async def work(endpoint: Endpoint) -> None:
        asked = client(endpoint, concurrency=2)
        await asyncio.gather(*(asked.ask(ASK, SAMPLING) for _ in range(8)))
        await asked.aclose()

    with serve(respond) as endpoint:
        asyncio.run(work(endpoint))
    assert (len(endpoint.bodies), endpoint.most_under_way) == (8, 2)


def engine_client(engine: Any, **options: Any) -> EngineClient:
    given = {"concurrency": 4, "timeout_s": 30, **options}
    return EngineClient(word_level(), engine.generate, model="tiny", **given)


def test_both_back_ends_say_the_same_of_the_same_model() -> None:
    with build_engine(build_model()) as engine:
        inside = engine_client(engine)

        async def respond(body: Body) -> Response:
            sampling = ChatSampling(
                max_tokens=body["max_tokens"],
                temperature=body["temperature"],
                samples=body["n"],
                seed=body["seed"],
            )
            replies = await inside.ask(body["messages"], sampling)
            return completion(*(reply.text for reply in replies), finish_reason=replies[0].finish_reason)

        sampling = replace(SAMPLING, samples=3)
        expected = asyncio.run(inside.ask(ASK, sampling))
        assert [reply.text for reply in asyncio.run(inside.ask(ASK, sampling))] == [r.text for r in expected]
        assert len({reply.text for reply in expected}) > 1
        with serve(respond) as endpoint:
            assert [reply.text for reply in ask(endpoint, sampling)] == [reply.text for reply in expected]


def test_the_engine_counts_tokens_and_says_when_a_reply_was_cut() -> None:
    with build_engine(build_model(), eos_token_ids=[]) as engine:
        (reply,) = asyncio.run(engine_client(engine).ask(ASK, SAMPLING))
    assert (reply.tokens, reply.complete) == (8, False)


def test_the_engine_refuses_what_is_too_long_and_gives_up_what_is_too_slow() -> None:
    with build_engine(build_model()) as engine:
        with pytest.raises(RefusedError, match="exceed the model length"):
            asyncio.run(engine_client(engine).ask(ASK, replace(SAMPLING, max_tokens=500)))
        engine.pause()
        with pytest.raises(UnavailableError, match="no reply within"):
            asyncio.run(engine_client(engine, timeout_s=0.05).ask(ASK, SAMPLING))


def test_sampling_is_checked() -> None:
    with pytest.raises(ValueError, match="temperature is -1"):
        ChatSampling(max_tokens=1, temperature=-1)


class Talker:
    """A client that says the texts one after the other; a text of "…" was cut."""

    def __init__(self, *texts: str) -> None:
        self.identity = {"model": "talker"}
        self.texts = list(texts)
        self.heard: list[Sequence[Any]] = []

    async def ask(self, messages: Sequence[Any], sampling: ChatSampling) -> list[Reply]:
        self.heard.append(messages)
        text = self.texts.pop(0)
        return [Reply(text=text, finish_reason="length" if text == "…" else "stop", tokens=None)]

    async def aclose(self) -> None:
        pass


def asked(path: Path, talker: LLMClient, *, record: str = "r", seed: int = 0, attempts: int = 3) -> str:
    def read(text: str) -> str:
        if text == "bad":
            raise BadReplyError("it is bad")
        return text

    with ResponseCache(path) as cache:
        sampling = ChatSampling(max_tokens=9, seed=seed)
        tasks = TaskClient(client=talker, cache=cache, sampling=sampling, attempts=attempts)
        return asyncio.run(tasks.ask(record, ASK, read))


def test_a_bad_reply_is_shown_to_the_model_with_the_reason(tmp_path: Path) -> None:
    talker = Talker("bad", "…", "good")
    assert asked(tmp_path / "replies.jsonl", talker) == "good"
    assert [len(messages) for messages in talker.heard] == [1, 3, 3]
    assert "it is bad" in talker.heard[1][2]["content"]
    assert "was cut (length)" in talker.heard[2][2]["content"]


def test_nothing_is_asked_twice_bad_replies_included(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    asked(path, Talker("bad", "good"))
    assert asked(path, Talker()) == "good"
    assert asked(path, Talker("other"), record="another") == "other"
    assert asked(path, Talker("reseeded"), seed=1) == "reseeded"


def test_a_reply_that_was_being_written_at_the_end_is_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    asked(path, Talker("bad", "good"))
    path.write_bytes(path.read_bytes()[:-5])
    assert asked(path, Talker("good again")) == "good again"


def test_attempts_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(NoReplyError, match=r"it is bad \(attempt 2 of 2\)"):
        asked(tmp_path / "replies.jsonl", Talker("bad", "bad"), attempts=2)


BLOCK = {
    "model": "tiny",
    "base_url": "http://localhost:1/v1",
    "api_key_env": None,
    "temperature": 0.1,
    "top_p": 1.0,
    "max_tokens": 9,
    "concurrency": 2,
    "timeout_s": 5,
    "request_attempts": 2,
    "attempts": 2,
    "engine": "auto",
    "tensor_parallel_size": 1,
    "gpu_memory_utilization": None,
}
MISTAKES = {
    "longshort.llm.model = None: is required": {"model": None},
    "longshort.llm.model = nowhere/at/all: no such folder": {"model": "nowhere/at/all", "base_url": None},
    "longshort.llm.api_key_env = NO_SUCH: no such environment variable": {"api_key_env": "NO_SUCH"},
    "longshort.llm.concurrency = 0: must be a whole number above 0": {"concurrency": 0},
    "longshort.llm.timeout_s = soon: must be a number above 0": {"timeout_s": "soon"},
    "longshort.llm.max_tokens = many: must be a whole number": {"max_tokens": "many"},
    "longshort.llm.temperature = -1: give 0": {"temperature": -1},
    "longshort.llm.modell = x: unknown key; did you mean model?": {"modell": "x"},
}


@pytest.mark.parametrize(("message", "change"), MISTAKES.items(), ids=MISTAKES.keys())
def test_mistakes_in_the_settings_are_named(message: str, change: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        LLMSettings.parse({**BLOCK, **change}, "longshort.llm")
    assert message in str(caught.value)


def test_a_reply_that_never_fits_into_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 512}')
    here = {**BLOCK, "base_url": None, "model": str(tmp_path)}
    LLMSettings.parse({**here, "max_tokens": 511}, "longshort.llm")
    with pytest.raises(UserError, match=r"longshort\.llm\.max_tokens = 512: does not fit into the 512 positions"):
        LLMSettings.parse({**here, "max_tokens": 512}, "longshort.llm")


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")
    settings = LLMSettings.parse({**BLOCK, "api_key_env": "SOME_KEY"}, "longshort.llm")
    assert (settings.api_key, settings.sampling(3).seed) == ("secret", 3)
    assert dict(settings.client(3).identity) == {"model": "tiny", "base_url": "http://localhost:1/v1"}
