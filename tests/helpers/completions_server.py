"""Two models of this package's engine behind `/v1/completions`, as vLLM's server offers it: token ids in, text out."""

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from verl_longshort.core.role_view import decode_turn
from verl_longshort.core.trajectory import Generation
from verl_longshort.core.watching import TextStream
from verl_longshort.engines.factory import EngineSettings, open_engine

START_S = 60


@contextmanager
def completions_server(models: Mapping[str, Path]) -> Iterator[str]:
    """The server's address, up to and with `/v1`; each model goes by its key."""
    with ExitStack() as engines:
        opened = {
            name: open_engine(str(path), EngineSettings(), max_num_seqs=8, seed=0, engines=engines)
            for name, path in models.items()
        }
        app = FastAPI()

        @app.post("/v1/completions")
        async def complete(request: Request) -> Response:
            body = json.loads(await request.body())
            tokenizer, engine = opened[Path(body["model"]).name]
            keys = ("temperature", "top_p", "seed", "stop", "max_tokens")
            asked = {
                "request_id": "one",
                "prompt_ids": body["prompt"],
                "sampling": {key: body[key] for key in keys},
            }
            if body.get("stream"):
                return StreamingResponse(_events(tokenizer, engine, asked), media_type="text/event-stream")
            made = await engine.generate(**asked)
            text = decode_turn(tokenizer, made.token_ids)
            return JSONResponse({"choices": [_end(made, text, body["stop"], text)], "usage": _usage(made)})

        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        deadline = time.monotonic() + START_S
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join(START_S)


async def _events(tokenizer: Any, engine: Any, asked: dict[str, Any]) -> AsyncIterator[bytes]:
    pieces: list[Any] = []
    made = await engine.stream(**asked, on_piece=pieces.append)
    stream, sent = TextStream(tokenizer), ""
    for piece in pieces:
        text = stream.add(piece)
        sent += text
        yield _event({"choices": [{"text": text, "finish_reason": None}]})
    whole = decode_turn(tokenizer, made.token_ids)
    yield _event({"choices": [_end(made, whole, asked["sampling"]["stop"], whole[len(sent) :])]})
    yield _event({"choices": [], "usage": _usage(made)})
    yield b"data: [DONE]\n\n"


def _end(made: Generation, whole: str, stop: list[str], text: str) -> dict[str, Any]:
    reached = next((string for string in stop if string in whole), None)
    return {"text": text, "finish_reason": made.finish_reason, "stop_reason": reached}


def _usage(made: Generation) -> dict[str, int]:
    return {"completion_tokens": len(made.token_ids)}


def _event(content: Any) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"
