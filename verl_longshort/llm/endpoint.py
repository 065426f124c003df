"""Models behind an OpenAI-compatible server, such as vLLM and SGLang.

* `EndpointClient` asks `<base_url>/chat/completions`.
* `CompletionEndpoint` asks `<base_url>/completions`, as a `core.trajectory.Generate`: prompts that the chat interface
  cannot express are sent as token ids. Tokens are what the server's `usage` counts; without it nothing is generated,
  since tokens are half of every result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from verl_longshort.base.errors import UnavailableError
from verl_longshort.core.trajectory import Generation
from verl_longshort.llm.client import ChatSampling, Message, RefusedError, Reply
from verl_longshort.llm.server import Server

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
        self._server = Server(base_url, key=key, **options)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model and address; see `LLMClient`."""
        return {"model": self._model, "base_url": self._server.base_url}

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
            replies += (await self._server.post("chat/completions", body, _replies))[:missing]
        return replies

    async def aclose(self) -> None:
        """Close the connections."""
        await self._server.aclose()


def _replies(completion: Any) -> list[Reply]:
    choices = completion["choices"]
    tokens = (completion.get("usage") or {}).get("completion_tokens") if len(choices) == 1 else None
    if not choices:
        raise ValueError("a chat completion without choices")
    return [_reply(choice, tokens) for choice in choices]


def _reply(choice: Mapping[str, Any], tokens: int | None) -> Reply:
    message = choice["message"]
    # A model that was truncated while it still reasoned has no content.
    text = message.get("content") or ""
    if not isinstance(text, str):
        raise TypeError(f"content is {type(text).__name__}, not text")
    return Reply(
        text=text,
        finish_reason=str(choice.get("finish_reason") or "unknown"),
        tokens=tokens,
        # Two names that vLLM and SGLang use when they are configured to separate the reasoning.
        reasoning=message.get("reasoning_content") or message.get("reasoning") or "",
    )


@dataclass(frozen=True)
class CompletionEndpoint:
    """One model of a server."""

    server: Server
    model: str

    async def generate(self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        """The continuation of a prompt, as text. Raises UnavailableError when the server does not give one."""
        body = {
            **sampling,
            "model": self.model,
            "prompt": prompt_ids,
            "seed": sampling["seed"] % SEEDS,
            # Which of the two closing tags of the short role it was decides what comes next. vLLM's name;
            # servers that do not know it say what they stopped at.
            "include_stop_str_in_output": True,
        }
        try:
            return await self.server.post("completions", body, partial(_generation, stop=sampling["stop"]))
        except RefusedError as error:
            raise UnavailableError(f"{self.server.base_url} refused a prompt: {error}") from error


def counted(tokens: Any) -> int:
    """The number of tokens in a server's `usage`. Raises UnavailableError when it does not say."""
    if not isinstance(tokens, int):
        raise UnavailableError("the endpoint does not count tokens (usage.completion_tokens)")
    return tokens


def _generation(content: Any, stop: Sequence[str]) -> Generation:
    choice = content["choices"][0]
    text, reason = choice["text"], choice["finish_reason"]
    if reason == "stop" and not any(tag in text for tag in stop):
        reported = [choice[key] for key in ("stop_reason", "matched_stop") if key in choice]
        if not reported:
            raise UnavailableError(
                "the endpoint does not say which stop string ended a turn; serve the model with vLLM or SGLang"
            )
        # Anything else is the end of text, which is no closing tag.
        text += next((tag for tag in reported if tag in stop), "")
    usage = content.get("usage") or {}
    return Generation(
        logprobs=None,
        finish_reason="stop" if reason == "stop" else "length",
        text=text,
        text_tokens=counted(usage.get("completion_tokens")),
    )
