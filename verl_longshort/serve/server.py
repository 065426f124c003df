"""Runs the server until it is asked to stop."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from longshort_reward.errors import UserError

from verl_longshort.base.seeds import derived_bytes
from verl_longshort.serve.http import build_app
from verl_longshort.serve.pair import open_pair
from verl_longshort.serve.settings import ServeSettings

_KEEP_ALIVE_S = 75

SWITCH_S = 0.0005
"""Between two of the interpreter's threads. The engines' threads seldom rest, and the one that serves waits for them at
every system call; with Python's 5 ms, tiny models served half as many tokens (benchmarks/serve_load.py)."""


def serve(settings: ServeSettings, say: Callable[[str], None]) -> None:
    """Serve the pair until SIGTERM or SIGINT: answers under way may then end, within `stop_timeout_s`.

    `say` is told where the server listens, once it does. Raises UserError.
    """
    sys.setswitchinterval(SWITCH_S)
    with _listening(settings) as listener:
        asyncio.run(_serve(settings, listener, say))


async def _serve(settings: ServeSettings, listener: socket.socket, say: Callable[[str], None]) -> None:
    async with open_pair(settings) as pair:
        names = "\n".join(settings.model_paths.values())
        config = uvicorn.Config(
            build_app(pair, settings, fingerprint=f"fp_{derived_bytes(0, names).hex()[:10]}"),
            lifespan="off",
            log_level="warning",
            access_log=False,
            # longer than clients keep a connection: one that is closed while they send is an error for them
            timeout_keep_alive=_KEEP_ALIVE_S,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(settings.stop_timeout_s)),
        )
        host, port = listener.getsockname()[:2]
        where = f"[{host}]" if ":" in host else host
        key = "no key" if settings.api_key_env is None else f"the key in {settings.api_key_env}"
        say(f"{settings.name} is served on http://{where}:{port}/v1, with {key}; stop it with Ctrl-C")
        with _stopping_is_no_error():
            await uvicorn.Server(config).serve(sockets=[listener])


@contextmanager
def _listening(settings: ServeSettings) -> Iterator[socket.socket]:
    """A socket on the host and port, taken before models are loaded."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        remedy = f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}): choose another port"
        raise UserError("longshort.port", settings.port, remedy) from error
    with listener:
        yield listener


@contextmanager
def _stopping_is_no_error() -> Iterator[None]:
    """uvicorn raises the signal that stopped it again, when all is done; models are still to be closed then."""
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: None) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
