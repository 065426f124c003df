"""The page at `/`: one HTML file with everything inside, which asks this server and nobody else.

A browser has no key to send when it opens an address. Where one is needed, it gets the file with the status 401: the
page then asks for the key. The file holds nothing of the pair. All that it asks for needs the key: the chat,
`/page/facts`, and `/page/single`, the answer of the one model that the pair is compared with (`longshort.single`),
which this server asks for it.
"""

import asyncio
import base64
import hashlib
import json
import re
import time
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from longshort_reward.errors import UserError

from verl_longshort.base.errors import UnavailableError
from verl_longshort.core.environment import Limits
from verl_longshort.core.role_view import Message
from verl_longshort.llm.client import ChatSampling, RefusedError, Reply
from verl_longshort.llm.endpoint import EndpointClient
from verl_longshort.llm.settings import api_key
from verl_longshort.serve.errors import EngineError, LateError, RequestError
from verl_longshort.serve.reception import GONE, body_of, unless_gone
from verl_longshort.serve.settings import ServeSettings

PATH = "/"
_FILE = files("verl_longshort.serve") / "templates" / "page.html"
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_ROLES = ("user", "assistant")


class Page:
    """The page's routes.

    Args:
        settings: of the server.
        limits: what an answer of the pair may spend at most.
    """

    def __init__(self, settings: ServeSettings, limits: Limits) -> None:
        self._settings = settings
        self._limits = limits

    def add_to(self, app: FastAPI) -> None:
        """Let an application have the routes."""
        app.get(PATH)(self.page)
        app.get("/page/facts")(self.facts)
        app.post("/page/single")(self.single)

    async def page(self) -> Response:
        """The file."""
        return page_response()

    async def facts(self) -> Response:
        """What the page shows of the server."""
        single = self._settings.single
        return JSONResponse(
            {
                "name": self._settings.name,
                "model": self._settings.name,
                "max_tokens": self._limits.token_budget,
                "single": None if single.base_url is None else single.model,
                "prices": self._settings.prices.model_dump(),
            }
        )

    async def single(self, request: Request) -> Response:
        """The one model's answer to a conversation."""
        if self._settings.single.base_url is None:
            raise RequestError("no single model is configured: start the server with longshort.single.base_url")
        messages = _messages(body_of(request))
        begun = time.monotonic()
        reply = await unless_gone(request.receive, self._ask(messages))
        if reply is None:
            return Response(status_code=GONE)
        return JSONResponse(
            {
                "text": reply.text,
                "reasoning": reply.reasoning,
                "tokens": reply.tokens,
                "finish_reason": reply.finish_reason,
                "seconds": round(time.monotonic() - begun, 3),
            }
        )

    async def _ask(self, messages: Sequence[Message]) -> Reply:
        given, limit = self._settings.single, self._settings.request_timeout_s
        assert given.base_url is not None, "it is configured"
        client = EndpointClient(
            given.base_url,
            model=str(given.model),
            key="longshort.single",
            api_key=api_key(given.api_key_env),
            concurrency=1,
            timeout_s=limit,
            attempts=1,
        )
        sampling = ChatSampling(
            max_tokens=given.max_tokens, temperature=self._settings.temperature, top_p=self._settings.top_p
        )
        try:
            (reply,) = await asyncio.wait_for(client.ask(messages, sampling), limit)
        except asyncio.TimeoutError:
            raise LateError(f"the single model did not answer within {limit:g} s", code="timeout") from None
        except RefusedError as error:
            raise RequestError(f"the single model refused the request: {error}", param="messages") from error
        except (UnavailableError, UserError) as error:
            raise EngineError("the single model does not work at present; its server must be looked at") from error
        finally:
            await client.aclose()
        return reply


def _messages(body: bytes) -> list[Message]:
    """The conversation in a request's body. Raises RequestError for anything else."""
    wrong = RequestError('the body must be {"messages": [{"role": "user", "content": "..."}, ...]}', param="messages")
    try:
        given = json.loads(body)["messages"]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise wrong from None
    if not isinstance(given, list) or not given or not all(map(_is_message, given)):
        raise wrong
    return [{"role": one["role"], "content": one["content"]} for one in given]


def _is_message(given: Any) -> bool:
    return isinstance(given, dict) and given.get("role") in _ROLES and isinstance(given.get("content"), str)


def page_response(status: int = 200) -> HTMLResponse:
    """The file."""
    return HTMLResponse(page(), status_code=status, headers=headers())


@cache
def page() -> str:
    """The file's text."""
    return _FILE.read_text(encoding="utf-8")


@cache
def headers() -> dict[str, str]:
    """The page may run its own script, use its own style and ask its own server, and nothing else."""
    policy = {"default-src": "'none'", "connect-src": "'self'", "img-src": "data:", "base-uri": "'none'"}
    for kind, text in _INLINE.findall(page()):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        policy[f"{kind}-src"] = f"'sha256-{digest}'"
    policy |= {"form-action": "'none'", "frame-ancestors": "'none'"}
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
