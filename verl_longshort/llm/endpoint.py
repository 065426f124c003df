"""Models behind an OpenAI-compatible server, such as vLLM and SGLang.

* `EndpointClient` asks `<base_url>/chat/completions`.
* `CompletionEndpoint` asks `<base_url>/completions`, as a `core.trajectory.Generate`: prompts that the chat interface
  cannot express are sent as token ids. Tokens are what the server's `usage` counts; without it nothing is generated,
  since tokens are half of every result.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from verl_longshort.base.characters import whole_characters
from verl_longshort.base.errors import UnavailableError
from verl_longshort.core.trajectory import Generation
from verl_longshort.llm.client import ChatSampling, Message, Reply
from verl_longshort.llm.finish import ABORTED, END_OF_TEXT, FILTERED, LENGTH, STOP_STRING, finish_reason, plain_word
from verl_longshort.llm.server import Server
from verl_longshort.problems.fields import joined_parts, thinking_apart

SEEDS = 2**31
"""Some servers take 32 signed bits."""


class EndpointClient:
    """Asks an OpenAI-compatible endpoint for chat completions.

    Args:
        base_url: up to and without `/chat/completions`.
        model: the server's name for it.
        key: the block of settings that describes the endpoint, for errors.
        options: the other arguments of `Server`.
    """

    def __init__(self, base_url: str, *, model: str, key: str = "longshort.llm", **options: Any) -> None:
        self._model = model
        other = renamed((options.get("names") or {}).items())
        self._renamed = {"request_names": other} if other else {}
        self._server = Server(base_url, key=key, **options)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model and address, and other names of parameters; see `LLMClient`."""
        return {"model": self._model, "base_url": self._server.base_url, **self._renamed}

    async def ask(self, messages: Sequence[Message], sampling: ChatSampling) -> list[Reply]:
        """See `LLMClient`. A server that gives fewer samples than it was asked for is asked for the rest."""
        replies: list[Reply] = []
        while len(replies) < sampling.samples:
            missing = sampling.samples - len(replies)
            body = {
                "model": self._model,
                "messages": [dict(message) for message in messages],
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "max_tokens": sampling.max_tokens,
                "n": missing,
                "seed": sampling.seed + len(replies),
            }
            read = partial(_replies, wanted=missing, max_tokens=sampling.max_tokens)
            replies += await self._server.post("chat/completions", body, read)
        return replies

    async def aclose(self) -> None:
        """Close the connections."""
        await self._server.aclose()


def renamed(names: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
    """Those names of parameters that differ from ours."""
    return {key: name for key, name in names if name != key}


def _replies(completion: Any, *, wanted: int, max_tokens: int) -> list[Reply]:
    choices = completion["choices"][:wanted]
    if not choices:
        raise ValueError("a chat completion without choices")
    # What a server generated beyond the one reply that it was asked for counts as that reply's.
    tokens = (completion.get("usage") or {}).get("completion_tokens") if len(choices) == 1 else None
    return [_reply(choice, tokens, max_tokens) for choice in choices]


def _reply(choice: Mapping[str, Any], tokens: int | None, max_tokens: int) -> Reply:
    message = choice["message"]
    reason = finish_reason(choice.get("finish_reason"), tokens=tokens, max_tokens=max_tokens)
    if reason == ABORTED:
        raise ValueError("the server gave up the reply")
    # A model that was truncated while it still reasoned has no content.
    content, thought = thinking_apart(message.get("content") or "")
    # Two names that vLLM and SGLang use when they are configured to separate the reasoning.
    apart = message.get("reasoning_content") or message.get("reasoning") or thought
    return Reply(
        text=whole_characters(joined_parts(content, "content")),
        finish_reason=reason,
        tokens=tokens,
        reasoning=whole_characters(joined_parts(apart, "reasoning")),
    )


@dataclass(frozen=True)
class CompletionEndpoint:
    """One model of a server."""

    server: Server
    model: str

    async def generate(self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        """The continuation of a prompt, as text. Raises what `Server.post` raises."""
        read = partial(_generation, stop=sampling["stop"], max_tokens=sampling["max_tokens"])
        return await self.server.post("completions", self._body(prompt_ids, sampling), read)

    async def stream(
        self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any], on_piece: Callable[[str], None]
    ) -> Generation:
        """The same, and gives the text to `on_piece` meanwhile. Raises what `Server.stream` raises."""
        whole: dict[str, Any] = {"text": ""}
        usage: dict[str, Any] = {}

        def take(event: Any) -> None:
            usage.update(event.get("usage") or {})
            for choice in event["choices"]:
                # a stop_reason of null says that no stop string was hit: kept, unless another event says more
                said = {key: value for key, value in choice.items() if value is not None or key not in whole}
                whole.update({key: value for key, value in said.items() if key != "text"})
                if text := choice.get("text"):
                    whole["text"] += text
                    on_piece(whole_characters(text))

        asked = {"stream": True, "stream_options": {"include_usage": True}}
        await self.server.stream("completions", {**self._body(prompt_ids, sampling), **asked}, take)
        return _generation({"choices": [whole], "usage": usage}, sampling["stop"], sampling["max_tokens"])

    def _body(self, prompt_ids: list[int], sampling: dict[str, Any]) -> dict[str, Any]:
        return {
            **sampling,
            "model": self.model,
            "prompt": prompt_ids,
            "seed": sampling["seed"] % SEEDS,
            # Which of the two closing tags of the short role it was decides what comes next. vLLM's name;
            # servers that do not know it say what they stopped at.
            "include_stop_str_in_output": True,
        }


def counted(tokens: Any) -> int:
    """The number of tokens in a server's `usage`. Raises UnavailableError when it does not say."""
    if not isinstance(tokens, int):
        raise UnavailableError("the endpoint does not count tokens (usage.completion_tokens)")
    return tokens


def _generation(content: Any, stop: Sequence[str], max_tokens: int) -> Generation:
    choice, usage = content["choices"][0], content.get("usage") or {}
    text, given = choice["text"] or "", choice.get("finish_reason")
    reason = finish_reason(given, tokens=usage.get("completion_tokens"), max_tokens=max_tokens)
    if reason == ABORTED:
        raise ValueError("the server gave up the turn")
    if reason != LENGTH and not any(tag in text for tag in stop) and plain_word(given) not in END_OF_TEXT:
        text += _stop_string(choice, stop)
    return Generation(
        logprobs=None,
        finish_reason={LENGTH: "length", FILTERED: "aborted"}.get(reason, "stop"),
        text=whole_characters(text),
        text_tokens=counted(usage.get("completion_tokens")),
    )


def _stop_string(choice: Mapping[str, Any], stop: Sequence[str]) -> str:
    """The stop string that ended a turn, which the server left out; "" for the end of the text."""
    reported = [choice[key] for key in ("stop_reason", "matched_stop") if key in choice]
    if reported:
        return next((tag for tag in reported if tag in stop), "")
    if plain_word(choice.get("finish_reason")) in STOP_STRING and len(stop) == 1:
        return stop[0]
    raise UnavailableError(
        "the endpoint does not say which stop string ended a turn; serve the model with vLLM or SGLang"
    )
