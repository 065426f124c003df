"""The HTTP interface: OpenAI's `/v1/chat/completions` and `/v1/models`, `/health`, `/metrics` and the page.

Every error has OpenAI's shape, `{"error": {"message", "type", "param", "code"}}`, with one sentence. In a stream that
has begun, it is the last event. A client that leaves cancels its answers. With a key, nothing but `/health` is answered
without it; a browser that opens the page (`serve/page.py`) is shown its file with the status 401, to ask for the key.
"""

import hmac
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from verl_longshort.serve.channels import Channels
from verl_longshort.serve.chat_request import ChatRequest, parse
from verl_longshort.serve.errors import BusyError, RequestError, ServeError
from verl_longshort.serve.events import Answered, Event
from verl_longshort.serve.metrics import Metrics
from verl_longshort.serve.page import PATH, Page, page_response
from verl_longshort.serve.reception import GONE, BodyReader, body_of, unless_gone
from verl_longshort.serve.replies import DONE, Choice, Reply, StopStrings, server_sent, told
from verl_longshort.serve.service import PairService
from verl_longshort.serve.settings import ServeSettings

Events = AsyncGenerator[list[tuple[int, Event]], None]
_HEALTH = "/health"
_CHECK_S = 10.0


def build_app(pair: PairService, settings: ServeSettings, *, fingerprint: str = "") -> FastAPI:
    """The server's application. `fingerprint` names the models in replies."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    server = _Server(pair, settings, fingerprint)
    app.get(_HEALTH)(server.health)
    app.get("/metrics")(server.metrics_page)
    app.get("/v1/models")(server.models)
    app.get("/v1/models/{name}")(server.model)
    # a route of starlette's: FastAPI's reading of parameters would take as long as the rest of a short answer
    app.add_route("/v1/chat/completions", server.complete, methods=["POST"])
    Page(settings, pair.limits).add_to(app)
    app.exception_handler(ServeError)(_error)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(Exception)(_unexpected)
    if (key := settings.api_key) is not None:
        app.add_middleware(KeyCheck, key=key)
    # the outermost
    app.add_middleware(BodyReader, most=settings.max_body_bytes, limit_s=settings.body_timeout_s)
    return app


class _Server:
    """The routes."""

    def __init__(self, pair: PairService, settings: ServeSettings, fingerprint: str) -> None:
        self._pair = pair
        self._settings = settings
        self._fingerprint = fingerprint
        self._metrics = Metrics(lambda: pair.running, lambda: pair.waiting)

    async def health(self) -> Response:
        """Whether the models answer; asks them if they did not when they were last asked."""
        if self._pair.failure is None or await self._pair.works(_CHECK_S):
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "a model of the pair does not work"}, status_code=503)

    async def metrics_page(self) -> Response:
        """For Prometheus."""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def models(self) -> Response:
        """The pair, as it is trained and as it answers at once."""
        return JSONResponse({"object": "list", "data": [self._card(suffix) for suffix in ("", ":answer")]})

    async def model(self, name: str) -> Response:
        """One of them."""
        own, _, suffix = name.partition(":")
        if own != self._settings.name:
            raise _NotFoundError(f"the server has no model {name[:100]}: it has {self._settings.name}")
        return JSONResponse(self._card(f":{suffix}" if suffix else ""))

    def _card(self, suffix: str) -> dict[str, Any]:
        limits = self._pair.limits
        return {
            "id": self._settings.name + suffix,
            "object": "model",
            "created": 0,
            "owned_by": "verl-longshort",
            "longshort": {"max_turns": limits.max_turns, "max_tokens": limits.token_budget},
        }

    async def complete(self, request: Request) -> Response:
        """A chat completion."""
        try:
            response = await self._complete(request)
        except ServeError as error:
            self._metrics.requested(error.status)
            raise
        return response

    async def _complete(self, request: Request) -> Response:
        chat = parse(body_of(request))
        events = self._pair.answers(chat.chat, chat.options(self._settings.name), count=chat.count)
        reply = Reply(chat.model, self._fingerprint)
        choices = [
            Choice(
                index=index,
                channels=Channels(attempts_are_content=chat.longshort.attempts == "content"),
                stop=StopStrings(chat.stop or ()),
            )
            for index in range(chat.count)
        ]
        if not chat.stream:
            done = await unless_gone(request.receive, self._finish(events, choices))
            self._metrics.requested(200 if done else GONE)
            return JSONResponse(reply.whole(choices)) if done else Response(status_code=GONE)
        # what is refused has a status of its own: only then the stream begins
        first = await unless_gone(request.receive, anext(events))
        if first is None:
            await events.aclose()
            self._metrics.requested(GONE)
            return Response(status_code=GONE)
        return _EventStream(self._stream(first, events, chat, choices, reply), events, self._metrics)

    async def _finish(self, events: Events, choices: list[Choice]) -> bool:
        async with aclosing(events):
            async for happened in events:
                for index, event in happened:
                    list(self._take(choices[index], event))
        return True

    def _take(self, choice: Choice, event: Event) -> list[dict[str, Any]]:
        if isinstance(event, Answered):
            self._metrics.answered(event)
        return list(choice.take(event))

    async def _stream(
        self, first: list[tuple[int, Event]], events: Events, chat: ChatRequest, choices: list[Choice], reply: Reply
    ) -> AsyncGenerator[bytes, None]:
        def chunks(happened: list[tuple[int, Event]]) -> Iterator[bytes]:
            for index, event in happened:
                if chat.longshort.events and (about := told(event)):
                    yield reply.chunk(index, {}, longshort=about)
                for delta in self._take(choices[index], event):
                    yield reply.chunk(index, delta)
                if isinstance(event, Answered):
                    yield reply.chunk(index, {}, **choices[index].finish())

        yield b"".join(reply.chunk(choice.index, {"role": "assistant", "content": ""}) for choice in choices)
        async with aclosing(events):
            try:
                if sent := b"".join(chunks(first)):
                    yield sent
                async for happened in events:
                    # one write for all that is there: a write costs as much as what it sends
                    if sent := b"".join(chunks(happened)):
                        yield sent
            except ServeError as error:
                yield server_sent(_content(error))
                return
        wants_usage = chat.stream_options is not None and chat.stream_options.include_usage
        yield (reply.usage_chunk(choices) if wants_usage else b"") + DONE


class _EventStream(Response):
    """Sends what a generator gives as server-sent events, and closes it when the client leaves."""

    def __init__(self, parts: AsyncGenerator[bytes, None], events: Events, metrics: Metrics) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._parts = parts
        self._events = events
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            done = await unless_gone(receive, self._send(send))
            self._metrics.requested(200 if done else GONE)
        finally:
            # a client that left before the first part
            await self._events.aclose()

    async def _send(self, send: Send) -> bool:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._parts) as parts:
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return True


class KeyCheck:
    """Answers nothing but `/health` without the key; a browser is shown the page, which asks for it."""

    def __init__(self, app: ASGIApp, *, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["path"] == _HEALTH or self._has_key(scope):
            await self._app(scope, receive, send)
            return
        response: Response
        if scope["path"] == PATH and scope["method"] == "GET" and b"text/html" in _header(scope, b"accept"):
            response = page_response(_UnauthorizedError.status)
        else:
            error = _UnauthorizedError("a key is needed: send it as Authorization: Bearer <key>")
            response = JSONResponse(_content(error), status_code=error.status)
        response.headers["www-authenticate"] = "Bearer"
        await response(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        return hmac.compare_digest(_header(scope, b"authorization"), self._expected)


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for known, value in scope["headers"] if known == name), b"")


class _UnauthorizedError(RequestError):
    status = 401
    kind = "authentication_error"


class _NotFoundError(RequestError):
    status = 404


def _content(error: ServeError) -> dict[str, Any]:
    return {"error": {"message": str(error), "type": error.kind, "param": error.param, "code": error.code}}


async def _error(_: Request, error: ServeError) -> Response:
    wait = {"retry-after": str(error.retry_after_s)} if isinstance(error, BusyError) else None
    return JSONResponse(_content(error), status_code=error.status, headers=wait)


async def _unexpected(_: Request, error: Exception) -> Response:
    # starlette raises the error again, so that it is logged
    return JSONResponse(_content(ServeError("the server has failed; its log says why")), status_code=500)


async def _http_error(_: Request, error: HTTPException) -> Response:
    known = {404: "there is no such address", 405: "this address does not take that method"}
    message = known.get(error.status_code, str(error.detail))
    content = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
    return JSONResponse(content, status_code=error.status_code, headers=error.headers)
