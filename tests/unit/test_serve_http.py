"""The HTTP interface over real engines and sockets, asked by the unmodified OpenAI client."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from helpers.serving import Served, save_word_models, served, word_pair
from longshort_reward.protocol import Role

KEY = "not-to-be-seen"
QUESTION: Any = [{"role": "user", "content": "start 2 ; a 2 ?"}]
IDLE_S = 20


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_word_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(models: dict[str, Path]) -> Iterator[Served]:
    """A pair that answers, whose short role can begin."""
    with served(word_pair(models, short="at_once")) as running:
        yield running


@pytest.fixture(scope="module")
def slow(models: dict[str, Path]) -> Iterator[Served]:
    """A pair that thinks for long, behind a key, with room for two answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAIR_KEY", KEY)
        more = ["longshort.environment.long_turn_tokens=240", "longshort.environment.token_budget=240"]
        more += ["longshort.max_num_seqs=1", "longshort.max_waiting=0", "longshort.api_key_env=PAIR_KEY"]
        with served(word_pair(models, *more, long="endless")) as running:
            yield running


def client(server: Served, key: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key=key, max_retries=0, timeout=60)


def idle(server: Served) -> None:
    """Waits until no answer is under way."""
    wait_until(lambda: not server.pair.running)
    assert (server.pair.running, server.pair.waiting) == (0, 0)


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits for what another thread does; gives up after a while."""
    end = time.monotonic() + IDLE_S
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)


def test_a_chat(server: Served) -> None:
    found = client(server).chat.completions.create(model="longshort", messages=QUESTION, seed=3)
    (choice,) = found.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "\\boxed{ 4 }")
    assert (choice.message.model_extra or {})["reasoning"] == "so"
    assert (choice.message.model_extra or {})["reasoning_content"] == "so"
    assert choice.finish_reason == "stop"
    usage = found.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (14, 8, 22)
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 3
    assert (usage.model_extra or {})["longshort"] == {
        "long": {"prompt_tokens": 7, "completion_tokens": 3},
        "short": {"prompt_tokens": 7, "completion_tokens": 5},
    }
    assert (choice.model_extra or {})["longshort"] | {"seconds": 0} == {
        "stop_reason": "answered",
        "fault_role": None,
        "turns": [{"role": "long", "tokens": 3, "fault": None}, {"role": "short", "tokens": 5, "fault": None}],
        "rethinks": 0,
        "seed": 3,
        "seconds": 0,
    }


def test_a_stream_is_the_chat_in_pieces(server: Served) -> None:
    asked: Any = {"model": "longshort", "messages": QUESTION, "n": 2, "stream": True}
    texts = {0: {"content": "", "reasoning": ""}, 1: {"content": "", "reasoning": ""}}
    finished, usage = [], None
    for chunk in client(server).chat.completions.create(**asked, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index]["content"] += choice.delta.content or ""
            texts[choice.index]["reasoning"] += (choice.delta.model_extra or {}).get("reasoning", "")
            finished += [choice.finish_reason] * (choice.finish_reason is not None)
    assert texts == {index: {"content": "\\boxed{ 4 }", "reasoning": "so"} for index in (0, 1)}
    assert finished == ["stop", "stop"]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (14, 16)


def test_a_stream_tells_of_turns_if_it_is_asked_to(server: Served) -> None:
    asked: Any = {"model": "longshort", "messages": QUESTION, "stream": True}
    chunks = client(server).chat.completions.create(**asked, extra_body={"longshort": {"events": True}})
    told = [more["longshort"] for chunk in chunks if (more := chunk.choices[0].model_extra) and "longshort" in more]
    assert [event.get("event") for event in told if event.get("event") != "text"] == [
        *("turn_started", "turn_ended", "turn_started", "turn_ended"),
        None,
    ]
    assert "".join(event["text"] for event in told if event.get("event") == "text") == "so\\boxed{ 4 }"


EFFORTS: dict[str, tuple[dict[str, Any], int]] = {
    "suffix": ({"model": "longshort:answer"}, 1),
    "thinking": ({"model": "longshort:think"}, 2),
    "field": ({"extra_body": {"longshort": {"first": "answer"}}}, 1),
    "OpenAI's": ({"reasoning_effort": "minimal"}, 1),
    "field before suffix": ({"model": "longshort:answer", "extra_body": {"longshort": {"first": "think"}}}, 2),
}


@pytest.mark.parametrize(("asked", "turns"), EFFORTS.values(), ids=EFFORTS)
def test_the_effort_of_a_request(server: Served, asked: dict[str, Any], turns: int) -> None:
    found = client(server).chat.completions.create(**{"model": "longshort", "messages": QUESTION, **asked})
    assert len((found.choices[0].model_extra or {})["longshort"]["turns"]) == turns
    assert found.choices[0].message.content == "\\boxed{ 4 }"


def test_reasons_for_an_end(server: Served, models: dict[str, Path]) -> None:
    def ended(asked: openai.OpenAI, **more: Any) -> tuple[str, str | None]:
        found = asked.chat.completions.create(**{"model": "longshort", "messages": QUESTION, **more})
        return found.choices[0].finish_reason, found.choices[0].message.content

    assert ended(client(server), max_tokens=6) == ("length", "\\boxed{ 4")
    assert ended(client(server), model="longshort:tokens=2") == ("length", "")
    assert ended(client(server), stop=" 4") == ("stop", "\\boxed{")
    assert ended(client(server), stop=["none", "4 }"], stream=False) == ("stop", "\\boxed{ ")
    with served(word_pair(models, short="asking")) as other:
        assert ended(client(other)) == ("error", "")
    with served(word_pair(models, short="doubting")) as other:
        assert ended(client(other), model="longshort:turns=4") == ("length", "so")


def test_models(server: Served) -> None:
    assert [model.id for model in client(server).models.list()] == ["longshort", "longshort:answer"]
    assert client(server).models.retrieve("longshort").id == "longshort"
    with pytest.raises(openai.NotFoundError, match="no model other"):
        client(server).models.retrieve("other")


def test_metrics(server: Served) -> None:
    client(server).chat.completions.create(model="longshort", messages=QUESTION)
    page = httpx.get(server.url.removesuffix("/v1") + "/metrics").text
    assert 'longshort_requests_total{status="200"}' in page
    assert 'longshort_generated_tokens_total{role="short"}' in page
    assert "longshort_running 0.0" in page


def test_nothing_but_health_without_the_key(slow: Served) -> None:
    root = slow.url.removesuffix("/v1")
    assert httpx.get(root + "/health").json() == {"status": "ok"}
    paths = ("/", "//", "/metrics", "/v1/models", "/v1/models/longshort", "/v1/chat/completions", "/none")
    wrong: list[dict[str, str]] = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}]
    with httpx.Client() as asker:
        for path in (*paths, "/page/facts", "/page/single", "/health/"):
            for method, headers in itertools.product(("GET", "POST", "OPTIONS"), wrong):
                reply = asker.request(method, root + path, headers=headers)
                assert (reply.status_code, reply.json()["error"]["type"]) == (401, "authentication_error")
                assert KEY not in reply.text
            assert asker.head(root + path).status_code == 401
    assert next(iter(client(slow, KEY).models.list())).id == "longshort"


def test_a_full_queue(slow: Served) -> None:
    async def work() -> None:
        asked: Any = {"model": "longshort", "messages": QUESTION}
        async with openai.AsyncOpenAI(base_url=slow.url, api_key=KEY, max_retries=0) as asker:
            outcomes = await asyncio.gather(
                *(asker.chat.completions.create(**asked) for _ in range(5)), return_exceptions=True
            )
        refused = [outcome for outcome in outcomes if isinstance(outcome, openai.RateLimitError)]
        assert (len(refused), len(outcomes)) == (3, 5)
        assert int(refused[0].response.headers["retry-after"]) >= 1

    asyncio.run(work())
    idle(slow)


def leave(url: str, **asked: Any) -> None:
    """A client that leaves after the first bytes of a stream, or soon without one."""
    body = {"model": "longshort", "messages": QUESTION, **asked}
    headers = {"Authorization": f"Bearer {KEY}"}
    if not asked.get("stream"):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/chat/completions", json=body, headers=headers, timeout=httpx.Timeout(30, read=0.05))
        return
    with httpx.stream("POST", f"{url}/chat/completions", json=body, headers=headers) as reply:
        next(reply.iter_bytes())


@pytest.mark.parametrize("asked", [{"stream": True}, {"stream": True, "n": 2}, {}], ids=["stream", "two", "whole"])
def test_a_client_that_leaves_ends_its_work(
    slow: Served, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    ended: list[bool] = []
    answers = slow.pair.answers

    async def watched(*arguments: Any, **options: Any) -> Any:
        finished = False
        try:
            async for event in answers(*arguments, **options):
                yield event
            finished = True
        finally:
            ended.append(finished)

    monkeypatch.setattr(slow.pair, "answers", watched)
    # an engine that is held: nothing ends by itself
    engine = _engine(slow)
    engine(True)
    try:
        if asked.get("stream"):
            # the turn has started, which is a stream's first event
            leave(slow.url, **asked)
        else:
            leave(slow.url)
        idle(slow)
        # this generator is closed just after the answer is no longer under way
        wait_until(lambda: bool(ended))
    finally:
        engine(False)
    assert ended == [False]
    assert client(slow, KEY).chat.completions.create(model="longshort", messages=QUESTION, max_tokens=4).choices


def _engine(server: Served) -> Callable[[bool], None]:
    """Holds the long role's engine, or lets it go on."""
    engine = server.pair.participants[Role.LONG].generate.__self__  # type: ignore[attr-defined]

    def hold(held: bool) -> None:
        engine.pause() if held else engine.resume()

    return hold


def test_an_engine_that_died_is_told(models: dict[str, Path]) -> None:
    with served(word_pair(models)) as dying:
        asker = client(dying)
        assert asker.chat.completions.create(model="longshort", messages=QUESTION).choices
        dying.pair.participants[Role.SHORT].generate.__self__.close()  # type: ignore[attr-defined]
        for stream in (False, True):
            with pytest.raises(openai.APIError, match="does not work at present"):
                list(asker.chat.completions.create(model="longshort", messages=QUESTION, stream=stream))
        reply = httpx.get(dying.url.removesuffix("/v1") + "/health")
        assert (reply.status_code, reply.json()["status"]) == (503, "a model of the pair does not work")


def test_an_answer_that_takes_too_long(models: dict[str, Path]) -> None:
    with served(word_pair(models, "longshort.request_timeout_s=0.3")) as late:
        _engine(late)(True)
        with pytest.raises(openai.InternalServerError, match="not answered within") as caught:
            client(late).chat.completions.create(model="longshort", messages=QUESTION)
        assert caught.value.status_code == 504
        with pytest.raises(openai.APIError, match="not answered within"):
            list(client(late).chat.completions.create(model="longshort", messages=QUESTION, stream=True))
        _engine(late)(False)
        late.pair._timeout_s = 60
        assert client(late).chat.completions.create(model="longshort", messages=QUESTION).choices
