"""Receiving a request: its body, before anything is done with it, and whether the client is still there."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from verl_longshort.serve.errors import ServeError

Result = TypeVar("Result")
GONE = 499
"""Status, for the metrics alone, of a request whose client left."""


_BODY = "longshort.body"
"""Where `BodyReader` leaves a request's body, or what is wrong with it, in the scope of ASGI."""


class PayloadError(ServeError):
    """The request is too large, does not come to an end, or is no JSON by its header."""

    kind = "invalid_request_error"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def unless_gone(receive: Receive, work: Awaitable[Result]) -> Result | None:
    """The result of `work`, or None if the client left first, which cancels it. The request's body has been read."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


class BodyReader:
    """Reads a request's body before the application sees the request, whatever will be answered.

    So a client that sends its request byte by byte has a connection for `limit_s` seconds and no longer, even if the
    request needs a key that it does not have. A body above `most` bytes is read to its end and not kept: a client that
    is still sending does not look for an answer.
    """

    def __init__(self, app: ASGIApp, *, most: int, limit_s: float) -> None:
        self._app = app
        self._most = most
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            pieces = bytearray()
            try:
                if not await asyncio.wait_for(self._read(receive, pieces), self._limit_s):
                    return
                scope[_BODY] = bytes(pieces)
            except asyncio.TimeoutError:
                sentence = f"the request did not come to an end within {self._limit_s:g} s: send it at once"
                scope[_BODY] = PayloadError(408, sentence)
                send = _closing(send)
            if len(pieces) > self._most:
                sentence = f"the request has more than {self._most} bytes, which is the most that this server takes"
                scope[_BODY] = PayloadError(413, sentence)
        await self._app(scope, receive, send)

    async def _read(self, receive: Receive, pieces: bytearray) -> bool:
        """Whether the body came to an end; False: the client left."""
        while (message := await receive())["type"] == "http.request":
            pieces += message.get("body", b"")[: self._most + 1 - len(pieces)]
            if not message.get("more_body", False):
                return True
        return False


def _closing(send: Send) -> Send:
    """Ends the connection with the answer: the rest of the request is not waited for."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return closing


def body_of(request: Request) -> bytes:
    """The request's body, which `BodyReader` has read. Raises PayloadError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise PayloadError(415, "the header Content-Type must be application/json")
    body: bytes | PayloadError = request.scope[_BODY]
    if isinstance(body, PayloadError):
        raise body
    return body
