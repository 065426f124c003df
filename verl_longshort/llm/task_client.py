"""Gives a model a task until its reply can be used. Every reply is kept, so that a killed stage asks nothing twice."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from verl_longshort.base.files import Record
from verl_longshort.base.journal import RecordFile
from verl_longshort.base.rejected import RejectedError
from verl_longshort.base.seeds import derived_seed
from verl_longshort.llm.client import ChatSampling, LLMClient, Message, RefusedError, Reply

Result = TypeVar("Result")
_SHOWN_AGAIN = 4000
_HEADER = {"holds": "replies of language models", "version": 1}


class ResponseCache(AbstractContextManager["ResponseCache"]):
    """The replies in one file, those of earlier runs included; a context manager that closes the file.

    A reply is filed under the record it was asked for and a hash of the model, the messages and the sampling.
    It is in the file when `ask` returns, also when the stage cannot use it.

    Raises UserError when the file holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._file = RecordFile(path, _HEADER)
        self._known: dict[str, Record] = {record["id"]: record for record in self._file.records}
        self.asked = 0
        """Requests that were not in the file."""

    def __exit__(self, *_: object) -> None:
        self._file.__exit__(None, None, None)

    async def ask(
        self, client: LLMClient, record_id: str, messages: Sequence[Message], sampling: ChatSampling
    ) -> list[Reply]:
        """The kept replies, or those of `client`. Raises what `client.ask` raises."""
        content = [dict(client.identity), [dict(message) for message in messages], asdict(sampling)]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
        key = f"{record_id}/{digest}"
        if key not in self._known:
            replies = await client.ask(messages, sampling)
            self._known[key] = {"id": key, "replies": [asdict(reply) for reply in replies]}
            self._file.append(self._known[key])
            self.asked += 1
        return [Reply(**reply) for reply in self._known[key]["replies"]]


class BadReplyError(Exception):
    """A reply cannot be used; the text says why, to the model that gave it."""


class NoReplyError(RejectedError):
    """No attempt gave a reply that can be used; `detail` says why the last one did not."""

    def __init__(self, detail: str) -> None:
        super().__init__("no reply that can be used", detail)


@dataclass(frozen=True, kw_only=True)
class TaskClient:
    """A client with its cache. What is sampled for a record depends on the seed and the record's id alone."""

    client: LLMClient
    cache: ResponseCache
    sampling: ChatSampling
    attempts: int

    async def ask(self, record_id: str, messages: Sequence[Message], read: Callable[[str], Result]) -> Result:
        """What `read` makes of the first reply that it takes; it raises BadReplyError for one it does not.

        After a bad reply the model sees that reply and the reason. A truncated reply is a bad one.

        Raises:
            NoReplyError: all attempts were bad, or the request was refused.
            UnavailableError: from the client.
        """
        reason, chat = "", list(messages)
        for attempt in range(self.attempts):
            try:
                # Some endpoints take 32 signed bits.
                seed = derived_seed(self.sampling.seed, f"{record_id}/{attempt}", bits=31)
                sampling = replace(self.sampling, seed=seed)
                (reply,) = await self.cache.ask(self.client, record_id, chat, sampling)
                if not reply.complete:
                    limit = f"; it may have {sampling.max_tokens} tokens at most" * (reply.finish_reason == "length")
                    raise BadReplyError(f"the reply was cut ({reply.finish_reason}){limit}")
                return read(reply.text)
            except RefusedError as error:
                raise NoReplyError(f"refused: {error}") from error
            except BadReplyError as error:
                reason = str(error)
                again = f"That cannot be used: {reason}. Reply again with the whole JSON list and nothing else."
                # Some endpoints refuse a message without text.
                given = reply.text[:_SHOWN_AGAIN].strip() or "(nothing)"
                chat = [*messages, {"role": "assistant", "content": given}, {"role": "user", "content": again}]
        raise NoReplyError(f"{reason} (attempt {self.attempts} of {self.attempts})")
