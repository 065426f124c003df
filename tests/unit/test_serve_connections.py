"""Clients that are slow to send, or leave: asked by bare sockets, over the real server."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from helpers.held_endpoint import held_endpoint
from helpers.serving import NO_PROMPTS, Served, save_word_models, serve_settings, served, word_pair
from longshort_reward.protocol import ROLES

KEY = "the-key"
QUESTION = [{"role": "user", "content": "start 2 ; a 2 ?"}]
CHAT = "/v1/chat/completions"
WATCHDOG_S = 60


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_word_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def impatient(models: dict[str, Path]) -> Iterator[Served]:
    """A server with a key that waits half a second for a request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAIR_KEY", KEY)
        more = ["longshort.body_timeout_s=0.5", "longshort.api_key_env=PAIR_KEY", "longshort.max_body_bytes=1000"]
        more += ["longshort.single.base_url=http://127.0.0.1:1/v1", "longshort.single.model=one"]
        with served(word_pair(models, *more)) as running:
            yield running


def connected(server: Served) -> socket.socket:
    address = urlsplit(server.url)
    assert address.hostname is not None
    assert address.port is not None
    return socket.create_connection((address.hostname, address.port), timeout=WATCHDOG_S)


def request(path: str, body: bytes, *, length: int | None = None, key: str | None = None) -> bytes:
    """A request, of whose body more may be announced than is there."""
    head = [
        f"POST {path} HTTP/1.1",
        "Host: here",
        "Content-Type: application/json",
        f"Content-Length: {len(body) if length is None else length}",
        *([] if key is None else [f"Authorization: Bearer {key}"]),
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def trickled(connection: socket.socket) -> bytes:
    """What the server says to a client that sends a space now and then, until it closes the connection."""
    said, end = b"", time.monotonic() + WATCHDOG_S
    connection.settimeout(0.1)
    while time.monotonic() < end:
        try:
            connection.sendall(b" ")
            if not (more := connection.recv(65536)):
                return said
            said += more
        except TimeoutError:
            continue
        except OSError:
            return said
    raise AssertionError("the server keeps the connection")


SLOW = {
    "chat": (CHAT, KEY, 100, 408, "did not come to an end within 0.5 s"),
    "the page's": ("/page/single", KEY, 100, 408, "did not come to an end within 0.5 s"),
    "no key": (CHAT, None, 100, 401, "a key is needed"),
    "no such address": ("/none", KEY, 100, 404, "there is no such address"),
    "too large": (CHAT, KEY, 10**9, 413, "more than 1000 bytes"),
}


@pytest.mark.parametrize(("path", "key", "length", "status", "sentence"), SLOW.values(), ids=SLOW)
def test_a_request_that_does_not_end_loses_its_connection(
    impatient: Served, path: str, key: str | None, length: int, status: int, sentence: str
) -> None:
    begun = b'{"model":' if status != 413 else b" " * 2000
    with connected(impatient) as connection:
        connection.sendall(request(path, begun, length=length, key=key))
        head, _, body = trickled(connection).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"connection: close" in head.lower()
    assert sentence in json.loads(body)["error"]["message"]


def test_a_client_that_leaves_before_its_request_ends(impatient: Served, caplog: pytest.LogCaptureFixture) -> None:
    with connected(impatient) as connection:
        connection.sendall(request(CHAT, b'{"model":', length=100, key=KEY))
    # others are served, and nothing is logged of it
    with connected(impatient) as connection:
        body = json.dumps({"model": "longshort", "messages": QUESTION}).encode()
        connection.sendall(request(CHAT, body, key=KEY))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert caplog.records == []


LEAVING: dict[str, tuple[str, dict[str, Any]]] = {
    "stream": (CHAT, {"model": "longshort", "stream": True}),
    "several": (CHAT, {"model": "longshort", "stream": True, "n": 3}),
    "whole": (CHAT, {"model": "longshort"}),
    "the page's single model": ("/page/single", {}),
}


@pytest.mark.parametrize(("path", "asked"), LEAVING.values(), ids=LEAVING)
def test_a_client_that_leaves_ends_its_requests_to_endpoints(
    models: dict[str, Path], path: str, asked: dict[str, Any]
) -> None:
    with held_endpoint() as endpoint:
        behind = [
            *(f"longshort.models.{role}={models[role]}" for role in ROLES),
            *(f"longshort.endpoint.base_url.{role}={endpoint.url}" for role in ROLES),
            f"longshort.single.base_url={endpoint.url}",
            "longshort.single.model=one",
        ]
        with served(serve_settings([*behind, NO_PROMPTS])) as running:
            with connected(running) as connection:
                connection.sendall(request(path, json.dumps({"messages": QUESTION, **asked}).encode()))
                assert endpoint.asked.wait(WATCHDOG_S), "the endpoint was not asked"
            end = time.monotonic() + WATCHDOG_S
            while (running.pair.running or endpoint.connections) and time.monotonic() < end:
                time.sleep(0.01)
            assert (running.pair.running, endpoint.connections) == (0, 0)
            # nor is it asked again
            assert endpoint.requests <= asked.get("n", 1)
