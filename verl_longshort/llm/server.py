"""Requests to a server with OpenAI's HTTP interface; those that fail in a passing way are sent again."""

import asyncio
import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    RetryError,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from verl_longshort.base.errors import UnavailableError
from verl_longshort.llm.client import RefusedError

Content = TypeVar("Content")

_PASSING = frozenset({408, 409, 425, 429})
_REFUSING = frozenset({400, 413, 422})
_LONGEST_WAIT_S = 60.0
_CONNECT_S = 10.0
_SHOWN = 300
_END_OF_STREAM = "[DONE]"


class _PassingError(Exception):
    """May succeed next time. `retry_after_s` is the shortest wait that the server asks for."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Server:
    """One server.

    Passing are: no connection, no complete reply within the time limit, status 408, 409, 425, 429 and 5xx,
    and a reply that cannot be read. The wait doubles each time, with jitter, and is never shorter than a
    `Retry-After` asks for.

    Args:
        base_url: up to and without the path of a request.
        api_key: sent as bearer token; None: none is.
        concurrency: requests under way at once; one that waits to be sent again is not under way.
        timeout_s: seconds for one request from sending to the last byte.
        attempts: how often one request is sent at most.
        backoff_s: unit of the waits between attempts.
        names: what the server calls the parameters of a request; None leaves one out. Those that are not here keep
            their names.
        key: the block of settings that describes the server, for errors.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        concurrency: int,
        timeout_s: float,
        attempts: int,
        backoff_s: float = 1.0,
        names: Mapping[str, str | None] | None = None,
        key: str,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._free = asyncio.Semaphore(concurrency)
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._backoff = wait_random_exponential(multiplier=backoff_s, max=_LONGEST_WAIT_S)
        self._names = names or {}
        self._key = key
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
            limits=httpx.Limits(max_connections=concurrency),
        )

    async def post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], Content]) -> Content:
        """What `read` makes of the JSON that the server replies to `body`.

        `read` raises ValueError, LookupError, TypeError or AttributeError for a reply of another shape.

        Raises:
            RefusedError: this request can never be answered, others can.
            UnavailableError: no answer, in spite of all attempts.
        """
        return await self._retried(self._attempt, path, body, read)

    async def stream(self, path: str, body: Mapping[str, Any], take: Callable[[Any], None]) -> None:
        """Give every JSON event of the server's streamed reply to `take`, which raises as `read` of `post` does.

        Sent again only as long as nothing has been given. Raises what `post` raises.
        """
        await self._retried(self._attempt_stream, path, body, take)

    async def _retried(
        self, attempt: Callable[..., Awaitable[Content]], path: str, body: Mapping[str, Any], use: Callable[[Any], Any]
    ) -> Content:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts), wait=self._wait, retry=retry_if_exception_type(_PassingError)
        )
        named = {self._names.get(key, key): value for key, value in body.items()}
        named.pop(None, None)
        try:
            return await retrying(attempt, path, named, use)
        except RetryError as error:
            last = error.last_attempt.exception()
            raise UnavailableError(
                f"{self.base_url}: {last} (attempt {self._attempts} of {self._attempts}); what was answered "
                "is kept: run the command again when the endpoint works"
            ) from last

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _wait(self, state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        requested = failure.retry_after_s if isinstance(failure, _PassingError) else 0.0
        return max(requested, self._backoff(state))

    async def _attempt(self, path: str, body: Mapping[str, Any], read: Callable[[Any], Content]) -> Content:
        async with self._free:
            try:
                # httpx limits the silence between two bytes, not the whole.
                sending = self._http.post(f"{self.base_url}/{path}", json=body)
                response = await asyncio.wait_for(sending, self._timeout_s)
            except (asyncio.TimeoutError, httpx.TimeoutException) as error:
                raise _PassingError(f"no complete reply within {self._timeout_s:g} s") from error
            except httpx.TransportError as error:
                raise _PassingError(f"{type(error).__name__}: {error}") from error
        self._check_status(response, body)
        try:
            return read(response.json())
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise _PassingError(f"no completion ({error}): {response.text[:_SHOWN]!r}") from error

    async def _attempt_stream(self, path: str, body: Mapping[str, Any], take: Callable[[Any], None]) -> None:
        begun = False

        async def follow() -> None:
            nonlocal begun
            async with self._http.stream("POST", f"{self.base_url}/{path}", json=body) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    self._check_status(response, body)
                async for line in response.aiter_lines():
                    data = line.removeprefix("data:").strip()
                    if line.startswith("data:") and data != _END_OF_STREAM:
                        begun = True
                        take(json.loads(data))

        async with self._free:
            try:
                await asyncio.wait_for(follow(), self._timeout_s)
                if begun:
                    return
                reason = "an empty reply"
            except (asyncio.TimeoutError, httpx.TimeoutException):
                reason = f"no complete reply within {self._timeout_s:g} s"
            except (httpx.TransportError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                reason = f"{type(error).__name__}: {error}"
        if begun:
            raise UnavailableError(f"{self.base_url}: the reply broke off: {reason}")
        raise _PassingError(reason)

    def _check_status(self, response: httpx.Response, body: Mapping[str, Any]) -> None:
        """Raise what a status other than 200 means."""
        status, shown = response.status_code, response.text[:_SHOWN]
        if status in _PASSING or status >= 500:
            raise _PassingError(f"status {status}: {shown}", _retry_after(response))
        if status in _REFUSING:
            words = set(re.findall(r"\w+", response.text))
            mentioned = next((key for key, name in self._names.items() if name in body and name in words), None)
            remedy = f"; {self._key}.request_names.{mentioned} renames it or leaves it out" if mentioned else ""
            raise RefusedError(f"status {status}: {shown}{remedy}")
        if status != httpx.codes.OK:
            remedy = f"check {self._key}.base_url, the model's name and the API key"
            raise UnavailableError(f"{response.url}: status {status}: {shown}; {remedy}")


def _retry_after(response: httpx.Response) -> float:
    try:
        seconds = float(response.headers.get("retry-after", 0))
    except ValueError:  # a date: the ordinary wait serves as well
        return 0.0
    return min(seconds, _LONGEST_WAIT_S) if math.isfinite(seconds) else 0.0
