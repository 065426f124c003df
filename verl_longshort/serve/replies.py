"""Answers in the words of OpenAI's chat interface.

`message.reasoning` (and `reasoning_content`, as other servers call it) holds the thoughts, `message.content` the
answer. `finish_reason` is `stop` for a complete answer, also for one that a stop string of the request ends, `length`
for one that tokens or turns ran out for, and `error` for one that a role ended by breaking the protocol;
`choices[].longshort` says more. `usage` counts the tokens of both roles, and each role's.
"""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from longshort_reward.protocol import ROLES, Role

from verl_longshort.core.environment import StopReason
from verl_longshort.serve.channels import CONTENT, Channels
from verl_longshort.serve.events import Answered, Event, TextDelta, TurnEnded, TurnStarted

# json.dumps would make one for every chunk
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_FINISH = {
    StopReason.ANSWERED: "stop",
    StopReason.MAX_TURNS: "length",
    StopReason.TOKEN_BUDGET: "length",
    StopReason.TURN_CUT: "length",
    StopReason.MALFORMED: "error",
    StopReason.EMPTY_TURN: "error",
}


class StopStrings:
    """Ends a text before the first of the strings."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """What can be shown, with the text; the beginning of what may become one of the strings is held back."""
        if self.found is not None:
            return ""
        text = self._held + text
        places = [(text.find(string), string) for string in self._strings if string in text]
        if places:
            place, self.found = min(places)
            return text[:place]
        held = max((_begun(text, string) for string in self._strings), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def end(self) -> str:
        """What was held back."""
        return self._held if self.found is None else ""


def _begun(text: str, string: str) -> int:
    """How many characters at the end of `text` begin `string`."""
    longest = min(len(text), len(string) - 1)
    return next((n for n in range(longest, 0, -1) if string.startswith(text[-n:])), 0)


@dataclass(kw_only=True)
class Choice:
    """One of the answers to a request."""

    index: int
    channels: Channels
    stop: StopStrings
    texts: dict[str, str] = field(default_factory=lambda: {"reasoning": "", "content": ""})
    end: Answered | None = None

    def take(self, event: Event) -> Iterator[dict[str, Any]]:
        """The deltas of a stream that the event gives; collects the texts."""
        for said in self.channels.take(event):
            text = self.stop.feed(said.text) if said.channel == CONTENT else said.text
            yield from self._delta(said.channel, text)
        if isinstance(event, Answered):
            self.end = event
            yield from self._delta(CONTENT, self.stop.end())

    def message(self) -> dict[str, Any]:
        """The whole message."""
        return {"role": "assistant", "content": self.texts["content"], **_reasoning(self.texts["reasoning"])}

    def finish(self) -> dict[str, Any]:
        """Why it ended."""
        end = self.ended
        return {
            "finish_reason": "stop" if self.stop.found is not None else _FINISH[end.stop_reason],
            "stop_reason": self.stop.found,
            "longshort": {
                "stop_reason": str(end.stop_reason),
                "fault_role": None if end.fault_role is None else str(end.fault_role),
                "turns": [
                    {"role": str(turn.role), "tokens": turn.tokens, "fault": turn.fault and str(turn.fault)}
                    for turn in end.turns
                ],
                "rethinks": end.rethinks,
                "seed": end.seed,
                "seconds": round(end.seconds, 3),
            },
        }

    @property
    def ended(self) -> Answered:
        """The last event."""
        assert self.end is not None, "the answer has not ended"
        return self.end

    def _delta(self, channel: str, text: str) -> Iterator[dict[str, Any]]:
        if text:
            self.texts[channel] += text
            yield {CONTENT: text} if channel == CONTENT else _reasoning(text)


def _reasoning(text: str) -> dict[str, Any]:
    return {"reasoning": text, "reasoning_content": text}


def usage(ends: Sequence[Answered]) -> dict[str, Any]:
    """Tokens of both roles and of each: generated ones of all answers, and the prompts once."""
    prompts, made = ends[0].prompt_tokens, {role: sum(end.tokens[role] for end in ends) for role in ROLES}
    answers = sum(end.turns[-1].tokens for end in ends if end.turns[-1].role is Role.SHORT)
    generated, prompt = sum(made.values()), sum(prompts.values())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "completion_tokens_details": {"reasoning_tokens": generated - answers},
        "longshort": {str(role): {"prompt_tokens": prompts[role], "completion_tokens": made[role]} for role in ROLES},
    }


class Reply:
    """The frame of one reply: its id, time and model."""

    def __init__(self, model: str, fingerprint: str) -> None:
        self._frame = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }
        # a chunk is mostly this
        self._chunk = _JSON.encode({**self._frame, "object": "chat.completion.chunk"}).removesuffix("}")

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The reply to a request that does not stream."""
        return {
            **self._frame,
            "object": "chat.completion",
            "choices": [
                {"index": choice.index, "message": choice.message(), "logprobs": None, **choice.finish()}
                for choice in choices
            ],
            "usage": usage([choice.ended for choice in choices]),
        }

    def chunk(self, index: int, delta: dict[str, Any], **more: Any) -> bytes:
        """A part of a stream."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return self._sent([choice])

    def usage_chunk(self, choices: Sequence[Choice]) -> bytes:
        """The last part of a stream, if it was asked for."""
        return self._sent([], usage=usage([choice.ended for choice in choices]))

    def _sent(self, choices: Sequence[dict[str, Any]], **more: Any) -> bytes:
        rest = _JSON.encode({"choices": choices, **more}).removeprefix("{")
        return _event(f"{self._chunk},{rest}")


def told(event: Event) -> dict[str, Any] | None:
    """An event as `choices[].longshort` of a stream that asks for events; None for the end, which `finish` has."""
    if isinstance(event, TurnStarted):
        return {"event": "turn_started", "role": str(event.role), "number": event.number}
    if isinstance(event, TextDelta):
        return {"event": "text", "role": str(event.role), "text": event.text}
    if isinstance(event, TurnEnded):
        return {
            "event": "turn_ended",
            "role": str(event.role),
            "number": event.number,
            "tokens": event.tokens,
            "closing": event.closing and str(event.closing).strip("</>"),
            "fault": event.fault and str(event.fault),
        }
    return None


def server_sent(content: Any) -> bytes:
    """One server-sent event."""
    return _event(_JSON.encode(content))


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


DONE = b"data: [DONE]\n\n"
