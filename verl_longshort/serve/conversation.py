"""What becomes of a chat's messages: system prompts, history and problem, and what a message may not hold.

A pair is trained on one problem at a time: the role's own system prompt, one user message, and the joint answer. A chat
is written with the same chat template, so that nothing but its earlier messages is new to the models:

* The last user message is the problem.
* Earlier user and assistant messages stand before it. An assistant's is the earlier answer alone: the
  thoughts behind it are not repeated. Neighbours of one role become one message.
* System (or developer) messages stand at the beginning. They are appended to the system prompt of both roles, which
  tells a role what it is and is never replaced. The pair was not trained with such additions.

A message is data. It may not hold a tag of the protocol, nor a special token of either model's tokenizer, as text or as
what the tokenizer makes of it: the models would read it as a turn, or as the end of the user's message. It is refused,
not rewritten, so that no question is silently another one.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from longshort_reward.protocol import TAGS, Role, RolePrompts

from verl_longshort.base.characters import half_character
from verl_longshort.core.role_view import Message, decode_turn, render_prompt
from verl_longshort.serve.errors import RequestError

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SYSTEM = ("system", "developer")


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A chat that can be answered."""

    system: str
    """The client's own; empty: none."""
    history: Sequence[Message]
    """User and assistant in turn, before the problem."""
    problem: str

    @classmethod
    def of(cls, messages: Sequence[Message], template: str = "{problem}") -> "Conversation":
        """What is asked; `template` is how a user's message is put to the models.

        Raises RequestError for messages in an order that is no conversation, and for what none may hold."""
        for number, message in enumerate(messages):
            _check_text(message["content"], f"messages[{number}].content")
        start = next((n for n, message in enumerate(messages) if message["role"] not in _SYSTEM), len(messages))
        chat = [
            {"role": role, "content": "\n\n".join(message["content"] for message in group)}
            for role, group in groupby(messages[start:], key=lambda message: message["role"])
        ]
        late = [number for number, message in enumerate(messages) if number > start and message["role"] in _SYSTEM]
        if late:
            raise _refused("a system message stands at the beginning", f"messages[{late[0]}].role")
        if not chat or chat[-1]["role"] != "user":
            raise _refused("the last message must be the user's", "messages")
        if chat[0]["role"] != "user":
            raise _refused("the first message, but for system messages, must be the user's", "messages")
        if not chat[-1]["content"].strip():
            raise _refused("the last message says nothing", f"messages[{len(messages) - 1}].content")
        system = "\n\n".join(message["content"] for message in messages[:start])
        for message in chat[::2]:
            message["content"] = template.replace("{problem}", message["content"])
        return cls(system=system, history=tuple(chat[:-1]), problem=chat[-1]["content"])

    def prompts(self, own: RolePrompts) -> RolePrompts:
        """The roles' system prompts with the client's behind them."""
        return RolePrompts(**{role: "\n\n".join(filter(None, (own.for_role(role), self.system))) for role in Role})

    @property
    def texts(self) -> Sequence[str]:
        """Everything that the client wrote."""
        return [text for text in (self.system, *(m["content"] for m in self.history), self.problem) if text]


class PromptGuard:
    """Sees to it that a conversation reaches one model as data. Has a tokenizer of its own, for any thread."""

    def __init__(self, tokenizer: Any, context_tokens: int | None) -> None:
        # a fast tokenizer does not bear two threads at once ("Already borrowed")
        self._tokenizer = copy.deepcopy(tokenizer)
        self._context_tokens = context_tokens
        self._special = _special_tokens(tokenizer)

    def check(self, role: Role, conversation: Conversation, own: RolePrompts) -> None:
        """Raise RequestError for text that the model would read as more than text, and for too much of it."""
        for text in conversation.texts:
            self._check(text)
        system = conversation.prompts(own).for_role(role)
        try:
            ids = render_prompt(self._tokenizer, system, conversation.problem, conversation.history)
        # a template raises jinja's errors and any of its own
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise _refused(f"the {role} model's chat template cannot write this conversation ({reason})") from error
        if self._context_tokens is not None and len(ids) >= self._context_tokens:
            raise RequestError(
                f"the conversation has {len(ids)} tokens and the {role} model's context {self._context_tokens}: "
                "leave out or shorten messages",
                param="messages",
                code="context_length_exceeded",
            )

    def _check(self, text: str) -> None:
        for word in self._special.values():
            if word in text:
                raise _refused(f"a message holds {word}, which a model reads as a control token: leave it out")
        try:
            ids = self._tokenizer.encode(text, add_special_tokens=False)
        # the tokenizers library raises plain Exceptions
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise _refused(f"a message holds what a model's tokenizer cannot write ({reason})") from error
        if not self._special.keys().isdisjoint(ids):
            raise _refused("a message holds what a model's tokenizer reads as a control token: leave it out")
        if tag := _tag_in(decode_turn(self._tokenizer, ids)):
            raise _refused(f"a message holds what a model's tokenizer reads as {tag}: leave it out")


def _special_tokens(tokenizer: Any) -> Mapping[int, str]:
    """Ids and texts of the control tokens; without the one for unknown words, which is a word like others."""
    added = {i: str(token) for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return {number: str(word) for number, word in {**added, **named}.items() if number != tokenizer.unk_token_id}


def _check_text(text: str, param: str) -> None:
    if tag := _tag_in(text):
        raise _refused(f"a message holds {tag}, by which the two models take turns: write it in another way", param)
    if found := _CONTROL.search(text):
        raise _refused(f"a message holds the control character U+{ord(found.group()):04X}: leave it out", param)
    if half := half_character(text):
        raise _refused(f"a message holds half a character ({half}): leave it out", param)


def _tag_in(text: str) -> str | None:
    return next((tag for tag in TAGS if tag in text), None)


def _refused(sentence: str, param: str = "messages") -> RequestError:
    return RequestError(sentence, param=param)
