"""Reasoning and content of an answer, as a chat client shows them, made of its events.

Thoughts are reasoning as they come. What the short role writes is the answer only if the answer ends with that turn:
the role may close it with `</rethink>` instead, and then it was an attempt, which is reasoning. So the text of a short
turn is held until it is known, unless no turn can follow: then it is content as it comes. With `attempts_are_content`
every short turn is content as it comes, and what the short role writes after a further thought continues it.

Turns of one channel are parted by an empty line. Joined, the content is `Answered.answer` (or all short turns with
`attempts_are_content`), whether or not turns came in pieces.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from longshort_reward.protocol import Role

from verl_longshort.serve.events import Answered, Event, TextDelta, TurnStarted

REASONING, CONTENT = "reasoning", "content"
_BETWEEN = "\n\n"


@dataclass(frozen=True, kw_only=True)
class Said:
    """More of one channel."""

    channel: str
    text: str


class Channels:
    """Sorts the events of one answer."""

    def __init__(self, *, attempts_are_content: bool = False) -> None:
        self._attempts_are_content = attempts_are_content
        self._held = ""
        self._holds = False
        self._channel = REASONING
        self._begun: set[str] = set()
        self._parted = False

    def take(self, event: Event) -> Iterator[Said]:
        """What can be shown now."""
        if isinstance(event, TurnStarted):
            yield from self._release(REASONING)
            short = event.role is Role.SHORT
            self._holds = short and not (event.last or self._attempts_are_content)
            self._begin(CONTENT if short else REASONING)
        elif isinstance(event, TextDelta) and self._holds:
            self._held += event.text
        elif isinstance(event, TextDelta):
            yield self._said(event.text)
        elif isinstance(event, Answered):
            yield from self._release(CONTENT)

    def _release(self, channel: str) -> Iterator[Said]:
        held, self._held, self._holds = self._held, "", False
        if held:
            self._begin(channel)
            yield self._said(held)

    def _begin(self, channel: str) -> None:
        self._channel, self._parted = channel, channel in self._begun

    def _said(self, text: str) -> Said:
        between = _BETWEEN if self._parted else ""
        self._parted = False
        self._begun.add(self._channel)
        return Said(channel=self._channel, text=between + text)
