"""Receiving a request: its body, and whether the client is still there."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request
from starlette.types import Receive

from verl_longshort.serve.errors import ServeError

Result = TypeVar("Result")
GONE = 499
"""Status, for the metrics alone, of a request whose client left."""


class PayloadError(ServeError):
    """The request is too large, or is no JSON by its header."""

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


async def body_of(request: Request, most: int) -> bytes:
    """The request's body. Raises PayloadError when it is larger than `most` bytes, as soon as that is known."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise PayloadError(415, "the header Content-Type must be application/json")
    size = 0
    pieces = []
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise PayloadError(413, f"the request has more than {most} bytes, which is the most that this server takes")
        pieces.append(piece)
    return b"".join(pieces)
