"""Gives a model a task until its reply can be used."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from verl_longshort.llm.client import LLMClient, Message, RefusedError, Reply, Sampling
from verl_longshort.llm.memory import ReplyMemory

Result = TypeVar("Result")
_SHOWN_AGAIN = 4000


class BadReplyError(Exception):
    """A reply cannot be used; the text says why, to the model that gave it."""


class NoReplyError(Exception):
    """No attempt gave a reply that can be used; the text says why the last one did not."""


@dataclass(frozen=True, kw_only=True)
class Asker:
    """A client with its memory. The draws for a record depend on the seed and the record's id alone."""

    client: LLMClient
    memory: ReplyMemory
    sampling: Sampling
    attempts: int

    async def ask(self, record_id: str, messages: Sequence[Message], read: Callable[[str], Result]) -> Result:
        """What `read` makes of the first reply that it takes; it raises BadReplyError for one it does not.

        A model that gave a bad reply is shown it and told why. A reply that was cut is a bad one.

        Raises:
            NoReplyError: all attempts were bad, or the request was refused.
            UnavailableError: from the client.
        """
        reason, chat = "", list(messages)
        for attempt in range(self.attempts):
            try:
                sampling = replace(self.sampling, seed=self._seed(record_id, attempt))
                (reply,) = await self.memory.ask(self.client, record_id, chat, sampling)
                return read(_whole(reply, sampling.max_tokens))
            except RefusedError as error:
                raise NoReplyError(f"refused: {error}") from error
            except BadReplyError as error:
                reason = str(error)
                chat = [*messages, *_correction(reply, reason)]
        raise NoReplyError(f"{reason} (attempt {self.attempts} of {self.attempts})")

    def _seed(self, record_id: str, attempt: int) -> int:
        digest = hashlib.sha256(f"{self.sampling.seed}/{record_id}/{attempt}".encode()).digest()
        # Some endpoints take 32 signed bits.
        return int.from_bytes(digest[:4], "big") >> 1


def _whole(reply: Reply, max_tokens: int) -> str:
    if not reply.complete:
        raise BadReplyError(f"the reply was cut ({reply.finish_reason}); it may have {max_tokens} tokens at most")
    return reply.text


def _correction(reply: Reply, reason: str) -> list[Message]:
    again = f"That cannot be used: {reason}. Reply again with the whole JSON list and nothing else."
    # Some endpoints refuse a message without text.
    said = reply.text[:_SHOWN_AGAIN].strip() or "(nothing)"
    return [{"role": "assistant", "content": said}, {"role": "user", "content": again}]
