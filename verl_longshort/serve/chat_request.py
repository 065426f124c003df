"""The body of a chat request, checked: OpenAI's fields, and what of them a pair can do.

Everything is honoured or refused by name. Fields that ask for what a pair cannot do are accepted as long as they ask
for nothing (`_NEUTRAL`), since clients send them. The effort is said in three ways, of which a later one holds:

* a suffix of the model's name: `:answer` (answer at once), `:think` (think first, as trained), `:turns=4`,
  `:tokens=512`, also several;
* `reasoning_effort`: `none` and `minimal` answer at once, `low` has one thought and the answer, the others all turns
  that the server allows;
* the field `longshort`, and `max_tokens` or `max_completion_tokens` for the tokens of both roles.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from longshort_reward.settings import Remedy, SettingError, Settings, as_user_error
from pydantic import AllowInfNan, BeforeValidator, Strict, ValidationError, model_validator
from typing_extensions import Self

from verl_longshort.base.characters import whole_characters
from verl_longshort.core.role_view import Message
from verl_longshort.serve.effort import THINK, UnknownWordError, effort_options
from verl_longshort.serve.errors import RequestError
from verl_longshort.serve.service import AnswerOptions

_SHOWN = 60
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "audio": (),
    "prediction": (),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Accepted values, besides null, of fields that a pair cannot follow otherwise."""
_IGNORED = ("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "metadata")
"""Say something of the client, nothing of the answer."""
_EFFORTS: Mapping[str, Mapping[str, Any]] = {
    "none": {"think_first": False},
    "minimal": {"think_first": False},
    "low": {"max_turns": 2},
    "medium": {},
    "high": {},
    "xhigh": {},
}

_Count = Annotated[Annotated[int, Strict(), Ge(1)] | None, Remedy("must be a whole number from 1 on")]
_Flag = Annotated[Annotated[bool, Strict()] | None, Remedy("must be true or false")]


def _text(content: Any) -> Any:
    """The text of a message: as it is, or that of its parts, one behind the other."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise SettingError("", content, "must be a text, or a list of parts of the type text")
    for number, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise SettingError(f"[{number}]", kind, 'must be {"type": "text", "text": "..."}: a pair reads text alone')
    return "\n".join(part["text"] for part in content)


class ChatMessage(Settings):
    """One message. What an assistant's message brings besides its text is not put to the models again."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant"], Remedy("must be one of system, developer, user, assistant")
    ]
    content: Annotated[str, BeforeValidator(_text)] = ""
    name: Annotated[str | None, Remedy("must be a text")] = None
    reasoning: Annotated[str | None, Remedy("must be a text")] = None
    reasoning_content: Annotated[str | None, Remedy("must be a text")] = None
    refusal: None = None
    annotations: Annotated[tuple[()] | None, Remedy("must be null")] = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[tuple[()] | None, Remedy("must be null: a pair calls no tools")] = None


class StreamOptions(Settings):
    """OpenAI's `stream_options`."""

    include_usage: _Flag = None
    include_obfuscation: _Flag = None


class PairOptions(Settings):
    """The field `longshort`: what OpenAI's fields have no words for."""

    max_turns: _Count = None
    first: Annotated[Literal["think", "answer"] | None, Remedy("must be think or answer")] = None
    attempts: Annotated[Literal["reasoning", "content"], Remedy("must be reasoning or content")] = "reasoning"
    """Where the short role's turns go that ask for another thought; see `serve/channels.py`."""
    events: Annotated[bool, Strict(), Remedy("must be true or false")] = False
    """A stream also tells of turns, and of their text as it is written."""


def _list_of_stops(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class ChatRequest(Settings):
    """A chat request without the fields of `_NEUTRAL` and `_IGNORED`."""

    model: Annotated[str, Strict(), Remedy("must be the name of a model")]
    messages: Annotated[
        tuple[ChatMessage, ...], MinLen(1), MaxLen(1000), Remedy("must be a list of 1 to 1000 messages")
    ]
    stream: _Flag = None
    stream_options: StreamOptions | None = None
    n: Annotated[Annotated[int, Strict(), Ge(1), Le(64)] | None, Remedy("must be a whole number from 1 to 64")] = None
    seed: Annotated[
        Annotated[int, Strict(), Ge(0), Le(2**63 - 1)] | None, Remedy("must be a whole number from 0 to 2^63 - 1")
    ] = None
    temperature: Annotated[
        Annotated[float, Strict(), Ge(0), Le(2), AllowInfNan(False)] | None, Remedy("must be a number from 0 to 2")
    ] = None
    top_p: Annotated[
        Annotated[float, Strict(), Gt(0), Le(1), AllowInfNan(False)] | None,
        Remedy("must be a number above 0 and up to 1"),
    ] = None
    max_tokens: _Count = None
    max_completion_tokens: _Count = None
    stop: Annotated[
        Annotated[tuple[Annotated[str, MinLen(1)], ...], BeforeValidator(_list_of_stops), MaxLen(4)] | None,
        Remedy("must be a text or up to 4 of them, none empty"),
    ] = None
    reasoning_effort: Annotated[
        Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None,
        Remedy(f"must be one of {', '.join(_EFFORTS)}"),
    ] = None
    longshort: PairOptions = PairOptions()

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise SettingError("max_tokens", self.max_tokens, "max_completion_tokens says otherwise: give one of them")
        if self.stream_options is not None and not self.stream:
            raise SettingError("stream_options", self.stream_options, "is for streams: leave it out, or set stream")
        return self

    @property
    def count(self) -> int:
        """Answers that are wanted."""
        return self.n or 1

    @property
    def chat(self) -> list[Message]:
        """The messages as the pair takes them."""
        return [{"role": message.role, "content": message.content} for message in self.messages]

    def options(self, name: str) -> AnswerOptions:
        """How the answers are made, by the server whose model is called `name`. Raises RequestError."""
        first = {} if self.longshort.first is None else {"think_first": self.longshort.first == THINK}
        tokens = self.max_completion_tokens if self.max_tokens is None else self.max_tokens
        said: dict[str, Any] = {"max_tokens": tokens, "max_turns": self.longshort.max_turns}
        effort = {
            **_suffix(self.model, name),
            **_EFFORTS.get(self.reasoning_effort or "", {}),
            **first,
            **{key: value for key, value in said.items() if value is not None},
        }
        return AnswerOptions(
            **effort,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stream=bool(self.stream),
        )


def parse(body: bytes) -> ChatRequest:
    """The request in the body. Raises RequestError with one sentence for anything else."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else "it cannot be read"
        raise RequestError(f"the body must be JSON: {reason}") from None
    if not isinstance(given, dict):
        raise RequestError("the body must be a JSON object with the fields model and messages")
    for key, accepted in _NEUTRAL.items():
        value = given.pop(key, None)
        if value is not None and value not in accepted:
            raise RequestError(f"{key} = {_shown(value)}: a pair cannot do that; leave it out", param=key)
    for key in _IGNORED:
        given.pop(key, None)
    if given.get("longshort", ...) is None:
        del given["longshort"]
    try:
        return ChatRequest.model_validate(given)
    except ValidationError as error:
        said = as_user_error(ChatRequest, error, "request")
        key = _readable(said.key.removeprefix("request.").replace(".[", "["))
        value = "" if said.value is None else f" = {_shown(said.value)}"
        raise RequestError(f"{key}{value}: {_readable(said.remedy)}", param=key) from None
    except RecursionError:
        raise RequestError("the body is nested too deeply") from None


def _suffix(model: str, name: str) -> dict[str, Any]:
    """The effort that the model's name asks for. Raises RequestError for another model or effort."""
    own, *words = model.split(":")
    if own != name:
        raise RequestError(f"model = {_shown(model)}: the server has {name}", param="model", code="model_not_found")
    try:
        return effort_options(words)
    except UnknownWordError:
        remedy = f"{name} may be followed by :answer, :think, :turns=<number> and :tokens=<number>"
        raise RequestError(f"model = {_shown(model)}: {remedy}", param="model") from None


def _shown(value: Any) -> str:
    """A value of the client's, short and on one line."""
    if isinstance(value, dict | list | tuple):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, Settings):
        return "an object"
    return _readable(json.dumps(value if isinstance(value, str | int | float | bool) else str(value)))


def _readable(text: str) -> str:
    """Whole printable characters, and not too many of them."""
    line = "".join(character if character.isprintable() else "?" for character in whole_characters(text[: _SHOWN * 4]))
    return line if len(line) <= _SHOWN * 3 else line[: _SHOWN * 3] + "..."
