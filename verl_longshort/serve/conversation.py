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
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from longshort_reward.protocol import TAGS, Role, RolePrompts

from verl_longshort.base.characters import half_character
from verl_longshort.core.role_view import Message, RoleView, decode_turn
from verl_longshort.core.trajectory import Participant
from verl_longshort.engines.tokenizers import sample_text
from verl_longshort.serve.errors import RequestError

_ANY_TAG = re.compile("|".join(map(re.escape, TAGS)))
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SYSTEM = ("system", "developer")
_KNOWN_SHAPES = 256
_Shape = tuple[bool, tuple[str, ...]]
"""Whether there is a system message of the client's, and the roles of the history."""
_Traits = tuple[list[int], list[str]]
"""Control tokens and tags of a prompt, in order."""


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
    """Sees to it that conversations reach the model of a role as data.

    What it compares is what the model gets: the prompt of a conversation has the control tokens and tags that the
    prompt of a harmless one of the same shape has, which the chat template and the system prompt put there.
    """

    def __init__(self, role: Role, participant: Participant, own: RolePrompts) -> None:
        self._role = role
        self._participant = participant
        self._own = own
        # for a thread: a fast tokenizer does not bear two at once ("Already borrowed")
        self._apart = replace(participant, tokenizer=copy.deepcopy(participant.tokenizer))
        self._special = _special_tokens(participant.tokenizer)
        self._known: dict[_Shape, _Traits] = {}

    def view(self, conversation: Conversation, *, apart: bool = False) -> RoleView:
        """The role's empty view of the conversation; `apart`: made on another thread, to see if it can be.

        Raises RequestError for text that the model would read as more than text, and for too much of it.
        """
        participant = self._apart if apart else self._participant
        for word in self._special.values():
            if any(word in text for text in conversation.texts):
                raise _refused(f"a message holds {word}, which a model reads as a control token: leave it out")
        try:
            view = self._view(participant, conversation)
        # the tokenizers library raises plain Exceptions, a template jinja's and any of its own
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise _refused(f"the {self._role} model's tokenizer cannot write this conversation ({reason})") from error
        ids, most = view.prompt_ids, participant.context_tokens
        if most is not None and len(ids) >= most:
            raise RequestError(
                f"the conversation has {len(ids)} tokens and the {self._role} model's context {most}: "
                "leave out or shorten messages",
                param="messages",
                code="context_length_exceeded",
            )
        if self._traits(participant, ids) != self._expected(participant, conversation):
            raise _refused(
                f"a message holds what the {self._role} model's tokenizer reads as a control token or tag: leave it out"
            )
        return view

    def _view(self, participant: Participant, conversation: Conversation) -> RoleView:
        prompts = conversation.prompts(self._own)
        return participant.view(self._role, prompts, conversation.problem, conversation.history)

    def _traits(self, participant: Participant, ids: list[int]) -> _Traits:
        shown = decode_turn(participant.tokenizer, ids)
        return [token for token in ids if token in self._special], _ANY_TAG.findall(shown)

    def _expected(self, participant: Participant, conversation: Conversation) -> _Traits:
        """Of a harmless conversation."""
        shape = (bool(conversation.system), tuple(message["role"] for message in conversation.history))
        if (known := self._known.get(shape)) is None:
            text = sample_text(participant.tokenizer)
            history = tuple({"role": role, "content": text} for role in shape[1])
            harmless = Conversation(system=text if shape[0] else "", history=history, problem=text)
            known = self._traits(participant, self._view(participant, harmless).prompt_ids)
            if len(self._known) < _KNOWN_SHAPES:
                self._known[shape] = known
        return known


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
