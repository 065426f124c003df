"""Gives a model a task until its reply can be used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from verl_longshort.base.rejected import RejectedError
from verl_longshort.base.seeds import derived_seed
from verl_longshort.llm.cache import ResponseCache
from verl_longshort.llm.client import ChatSampling, LLMClient, Message, RefusedError

Result = TypeVar("Result")
_SHOWN_AGAIN = 4000


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
                    limit = f"it may have {sampling.max_tokens} tokens at most"
                    raise BadReplyError(f"the reply was cut ({reply.finish_reason}); {limit}")
                return read(reply.text)
            except RefusedError as error:
                raise NoReplyError(f"refused: {error}") from error
            except BadReplyError as error:
                reason = str(error)
                again = f"That cannot be used: {reason}. Reply again with the whole JSON list and nothing else."
                # Some endpoints refuse a message without text.
                given = reply.text[:_SHOWN_AGAIN].strip() or "(nothing)"
                answer = {"role": "assistant", "content": given}
                chat = [*messages, answer, {"role": "user", "content": again}]
        raise NoReplyError(f"{reason} (attempt {self.attempts} of {self.attempts})")
