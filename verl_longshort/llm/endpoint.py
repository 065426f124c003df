"""Any server that speaks `POST <base_url>/chat/completions`, as OpenAI, vLLM and SGLang do."""

from collections.abc import Mapping, Sequence
from typing import Any

from verl_longshort.llm.client import ChatSampling, Message, Reply
from verl_longshort.llm.server import Server


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
            body = self._body(messages, sampling, missing)
            replies += (await self._server.post("chat/completions", body, _replies))[:missing]
        return replies

    async def aclose(self) -> None:
        """Close the connections."""
        await self._server.aclose()

    def _body(self, messages: Sequence[Message], sampling: ChatSampling, samples: int) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": [dict(message) for message in messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "n": samples,
            "seed": sampling.seed + sampling.samples - samples,
        }


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
