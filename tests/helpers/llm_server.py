"""A real HTTP server with an OpenAI-compatible endpoint, whose replies a test decides."""

import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

Body = dict[str, Any]
Respond = Callable[[Body], Awaitable[Response]]
START_S = 20


class Endpoint:
    """What a test sees of the server: where it is, and what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[Body] = []
        self.keys: list[str | None] = []
        self.under_way = self.most_under_way = 0


def completion(*texts: str, finish_reason: str = "stop", tokens: int = 3) -> JSONResponse:
    choices = [
        {"index": k, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        for k, text in enumerate(texts)
    ]
    return JSONResponse({"choices": choices, "usage": {"completion_tokens": tokens}})


def failure(status: int, **headers: str) -> Response:
    return Response("no", status_code=status, headers={key.replace("_", "-"): v for key, v in headers.items()})


def cut() -> Response:
    """The connection ends before the body does."""
    return Response(b'{"choices": [', headers={"content-length": "1000"}, media_type="application/json")


def in_turn(responses: Sequence[Response]) -> Respond:
    """The responses one after the other, the last one again and again."""
    left = list(responses)

    async def respond(_: Body) -> Response:
        return left.pop(0) if len(left) > 1 else left[0]

    return respond


@contextmanager
def serve(respond: Respond) -> Iterator[Endpoint]:
    """The one server of this process, which now answers with `respond`."""
    server = _running()
    server.endpoint, server.respond = Endpoint(server.url), respond
    yield server.endpoint


class _Running:
    def __init__(self) -> None:
        self.endpoint, self.respond = Endpoint(""), in_turn([failure(503)])
        app = FastAPI()
        app.post("/v1/chat/completions")(self.complete)
        app.post("/v1/completions")(self.complete)
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical"))
        threading.Thread(target=server.run, daemon=True).start()
        deadline = time.monotonic() + START_S
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"

    async def complete(self, request: Request) -> Response:
        endpoint = self.endpoint
        endpoint.bodies.append(json.loads(await request.body()))
        endpoint.keys.append(request.headers.get("authorization"))
        endpoint.under_way += 1
        endpoint.most_under_way = max(endpoint.most_under_way, endpoint.under_way)
        try:
            return await self.respond(endpoint.bodies[-1])
        finally:
            endpoint.under_way -= 1


_running = lru_cache(maxsize=1)(_Running)
