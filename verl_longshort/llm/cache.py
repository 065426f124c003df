"""Keeps replies in an append-only file, so that a stage that was killed asks nothing twice."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from verl_longshort.base.files import Record
from verl_longshort.base.journal import RecordFile
from verl_longshort.llm.client import ChatSampling, LLMClient, Message, Reply

_HEADER = {"holds": "replies of language models", "version": 1}


class ResponseCache:
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

    def __enter__(self) -> "ResponseCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    async def ask(
        self, client: LLMClient, record_id: str, messages: Sequence[Message], sampling: ChatSampling
    ) -> list[Reply]:
        """The kept replies, or those of `client`. Raises what `client.ask` raises."""
        key = f"{record_id}/{_digest(client.identity, messages, sampling)}"
        if key not in self._known:
            replies = await client.ask(messages, sampling)
            self._known[key] = {"id": key, "replies": [asdict(reply) for reply in replies]}
            self._file.append(self._known[key])
            self.asked += 1
        return [Reply(**reply) for reply in self._known[key]["replies"]]


def _digest(identity: Mapping[str, object], messages: Sequence[Message], sampling: ChatSampling) -> str:
    content = [dict(identity), [dict(message) for message in messages], asdict(sampling)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
