"""A model behind an OpenAI-compatible server's `/completions`, as a `core.trajectory.Generate`.

Prompts that the chat interface cannot express are sent as token ids. Tokens are what the server's `usage` counts;
without it nothing is generated, since tokens are half of every result.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from verl_longshort.base.errors import UnavailableError
from verl_longshort.core.trajectory import Generation
from verl_longshort.llm.client import RefusedError
from verl_longshort.llm.server import Server

SEEDS = 2**31
"""Some servers take 32 signed bits."""


class CompletionEndpoint:
    """One model of a server."""

    def __init__(self, server: Server, model: str) -> None:
        self._server = server
        self._model = model

    async def generate(self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        """The continuation of a prompt, as text. Raises UnavailableError when the server does not give one."""
        stop: Sequence[str] = sampling["stop"]
        body = {
            **sampling,
            "model": self._model,
            "prompt": prompt_ids,
            "seed": sampling["seed"] % SEEDS,
            # Which of the two closing tags of the short role it was decides what comes next. vLLM's name;
            # servers that do not know it say what they stopped at.
            "include_stop_str_in_output": True,
        }
        try:
            generation: Generation = await self._server.post(
                "completions", body, lambda content: _generation(content, stop)
            )
        except RefusedError as error:
            raise UnavailableError(f"{self._server.base_url} refused a prompt: {error}") from error
        return generation


def counted(tokens: Any) -> int:
    """The number of tokens in a server's `usage`. Raises UnavailableError when it does not say."""
    if not isinstance(tokens, int):
        raise UnavailableError("the endpoint does not count tokens (usage.completion_tokens)")
    return tokens


def _generation(content: Any, stop: Sequence[str]) -> Generation:
    choice = content["choices"][0]
    text, reason = choice["text"], choice["finish_reason"]
    if reason == "stop" and not any(tag in text for tag in stop):
        text += _stopped_at(choice, stop)
    usage = content.get("usage") or {}
    return Generation(
        logprobs=None,
        finish_reason="stop" if reason == "stop" else "length",
        text=text,
        text_tokens=counted(usage.get("completion_tokens")),
    )


def _stopped_at(choice: Mapping[str, Any], stop: Sequence[str]) -> str:
    reported = [choice[key] for key in ("stop_reason", "matched_stop") if key in choice]
    if not reported:
        raise UnavailableError(
            "the endpoint does not say which stop string ended a turn; serve the model with vLLM or SGLang"
        )
    # Anything else is the end of text, which is no closing tag.
    return next((tag for tag in reported if tag in stop), "")
