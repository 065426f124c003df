"""`longshort serve` on a thread of the test's process, with tiny models or any pair."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import openai
import uvicorn
from longshort_reward.protocol import ROLES

from helpers.word_models import FOLLOWING, save_model
from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import plain_dict
from verl_longshort.serve.http import build_app
from verl_longshort.serve.pair import PairService, open_pair
from verl_longshort.serve.settings import ServeSettings

START_S = 60
NO_PROMPTS = "longshort.environment.prompts={long:'',short:''}"


def save_word_models(folder: Path) -> dict[str, Path]:
    """The models of `FOLLOWING`, a long one that never ends its thought, and a short one that can begin."""
    more = {
        "endless": {**FOLLOWING["long"], "so": "so"},
        "at_once": {**FOLLOWING["short"], "?": "<answer>"},
    }
    return {name: save_model(folder / name, following) for name, following in {**FOLLOWING, **more}.items()}


def word_pair(models: dict[str, Path], *more: str, long: str = "long", short: str = "short") -> ServeSettings:
    """Settings of a server of two of these models."""
    own = [f"longshort.models.long={models[long]}", f"longshort.models.short={models[short]}", NO_PROMPTS]
    return serve_settings([*own, "longshort.environment.token_budget=60", *more])


def serve_settings(overrides: Sequence[str]) -> ServeSettings:
    return ServeSettings.parse(plain_dict(compose_config("serve", overrides).longshort))


class Served:
    """A server that runs."""

    url: str
    """Up to and with `/v1`."""
    pair: PairService
    loop: asyncio.AbstractEventLoop

    def tasks(self) -> int:
        """Tasks of the server's event loop, while nothing is asked of it."""
        counted: asyncio.Future[int] = asyncio.run_coroutine_threadsafe(_tasks(), self.loop)  # type: ignore[assignment]
        return counted.result(START_S)  # type: ignore[call-arg]


async def _tasks() -> int:
    return len(asyncio.all_tasks())


@contextmanager
def served(settings: ServeSettings, opened: AbstractAsyncContextManager[PairService] | None = None) -> Iterator[Served]:
    """The server; stopped gracefully at the end. `opened` takes the place of the pair that the settings describe."""
    ready, failed = threading.Event(), []
    running = Served()
    server: Any = None

    async def work() -> None:
        nonlocal server
        async with opened or open_pair(settings) as pair:
            config = uvicorn.Config(
                build_app(pair, settings),
                port=0,
                lifespan="off",
                log_level="error",
                timeout_graceful_shutdown=round(settings.stop_timeout_s),
            )
            server = uvicorn.Server(config)
            serving = asyncio.ensure_future(server.serve())
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            running.pair, running.loop = pair, asyncio.get_running_loop()
            running.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
            ready.set()
            await serving

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(START_S), "the server did not start"
    try:
        if not failed:
            yield running
    finally:
        if server is not None:
            server.should_exit = True
        thread.join(START_S)
        if failed:
            raise failed[0]


def seen_answer(asker: openai.OpenAI, request: dict[str, Any], *, stream: bool) -> dict[str, Any]:
    """What a client of `longshort serve` sees of an answer, whole or streamed: texts, end, turns, tokens by role."""
    if stream:
        return _streamed(asker, request)
    found = asker.chat.completions.create(**request)
    (choice,) = found.choices
    return {
        "content": choice.message.content,
        "reasoning": (choice.message.model_extra or {})["reasoning"],
        **_end(choice),
        "tokens": _tokens(found.usage),
    }


def _streamed(asker: openai.OpenAI, request: dict[str, Any]) -> dict[str, Any]:
    seen: dict[str, Any] = {"content": "", "reasoning": ""}
    for chunk in asker.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            seen["content"] += choice.delta.content or ""
            seen["reasoning"] += (choice.delta.model_extra or {}).get("reasoning", "")
            if choice.finish_reason is not None:
                seen |= _end(choice)
        if chunk.usage is not None:
            seen["tokens"] = _tokens(chunk.usage)
    return seen


def _end(choice: Any) -> dict[str, Any]:
    end = choice.model_extra["longshort"]
    return {"stop_reason": end["stop_reason"], "turns": end["turns"]}


def _tokens(usage: Any) -> dict[str, int]:
    return {str(role): usage.model_extra["longshort"][role]["completion_tokens"] for role in ROLES}
