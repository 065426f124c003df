"""A model's server that takes a request, begins its answer if that streams, and never ends it."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

START_S = 60


class HeldEndpoint:
    """What a test sees of the server, from another thread."""

    def __init__(self) -> None:
        self.url = ""
        """Up to and with `/v1`."""
        self.requests = 0
        self.asked = threading.Event()
        """A request has arrived."""
        self.connections = 0
        """Of those that sent requests, how many are open."""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = next(line.partition(b":")[2] for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        body = json.loads(await reader.readexactly(int(length)))
        self.requests += 1
        self.connections += 1
        try:
            # an end, too: the client leaves with some of the answer unread
            with suppress(ConnectionResetError):
                await self._hold(reader, writer, stream=bool(body.get("stream")))
        finally:
            self.connections -= 1
            writer.close()

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, stream: bool) -> None:
        if stream:
            event = {"choices": [{"text": "<think>", "finish_reason": None}]}
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            writer.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            await writer.drain()
        self.asked.set()
        # ends with the connection, since nothing more is sent
        await reader.read()


@contextmanager
def held_endpoint() -> Iterator[HeldEndpoint]:
    """The server, on a thread of its own."""
    endpoint, loop, started = HeldEndpoint(), asyncio.new_event_loop(), threading.Event()

    async def start() -> asyncio.Server:
        server = await asyncio.start_server(endpoint.take, "127.0.0.1", 0)
        endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        return server

    def work() -> None:
        server = loop.run_until_complete(start())
        started.set()
        loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert started.wait(START_S), "the server did not start"
    try:
        yield endpoint
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_S)
