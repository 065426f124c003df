r"""JSON out of a model's reply: after prose, in a code fence, nearly correct, or not at all.

`json_values` gives every reading of a reply, the literal ones first; `read_objects` takes the first that is a list of
objects which its caller can use. LaTeX is the trap: a model writes `"\frac"` where JSON wants `"\\frac"`, and JSON
reads a form feed.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import json_repair
from longshort_reward.protocol import THINK_CLOSE

from verl_longshort.llm.task_client import BadReplyError

Result = TypeVar("Result")
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL | re.IGNORECASE)
_OPENING = re.compile(r"[\[{]")
_MOST_OPENINGS = 200
_SOUND_COMMAND = re.compile(r"(?<!\\)\\\\[A-Za-z(\[]")
_ESCAPE = re.compile(r"\\(\\|.)", re.DOTALL)
_QUOTE = re.compile(r'(?<!\\)(?:\\\\)*"')
_UNICODE = re.compile(r"u[0-9a-fA-F]{4}")
_LATEX_WITH_N = re.compile(r"n(?:e|eq|eg|u|abla|ot|otin|mid|i|exists|atural|leq|geq|less|gtr)(?![A-Za-z])")


def json_values(text: str) -> Iterator[Any]:
    """Readings of `text` as JSON lists and objects: literal ones first, then repaired ones.

    What a reasoning model has thought first is not read.
    """
    text = escape_latex(text.rpartition(THINK_CLOSE)[2])
    fenced = [match.group(1) for match in _FENCE.finditer(text)]
    for readings in (_literal, _repaired):
        for part in (*fenced, text):
            yield from readings(part)


def read_objects(
    reply: str, take: Callable[[list[dict[str, Any]]], Result], *, required: set[str], described: str
) -> Result:
    """What `take` makes of the first list of objects in a reply that it accepts; BadReplyError says that it does not.

    Every object has at least the keys `required`; `described` names the keys to the model. The list may be the only
    value of an object.

    Raises:
        BadReplyError: no reading of the reply is such a list, or the last one was not accepted.
    """
    reason = f"no JSON list of objects with {described}"
    for value in json_values(reply):
        if isinstance(value, dict) and len(value) == 1:
            (value,) = value.values()
        if not isinstance(value, list) or not value:
            continue
        if all(isinstance(item, dict) and required <= item.keys() for item in value):
            try:
                return take(value)
            except BadReplyError as error:
                reason = str(error)
    raise BadReplyError(reason)


def escape_latex(text: str) -> str:
    r"""Double the backslashes of LaTeX commands in JSON whose author did not: `"\frac"` to `"\\frac"`.

    A text with a doubled one somewhere is left alone, since its author knows. `\n` stays a line break unless
    a command such as `\neq` stands there.
    """
    if _SOUND_COMMAND.search(text):
        return text
    return _ESCAPE.sub(_doubled, text)


def _doubled(match: re.Match[str]) -> str:
    text = match.string
    what, start = match.group(1), match.start(1)
    letter_follows = text[start + 1 : start + 2].isalpha()
    if what in '\\"/':
        meant = False
    elif what == "u":
        meant = _UNICODE.match(text, start) is None
    elif what == "n":
        meant = _LATEX_WITH_N.match(text, start) is not None
    else:
        meant = what not in "bfrt" or letter_follows
    return "\\" + match.group() if meant else match.group()


def _literal(text: str) -> Iterator[Any]:
    # Not strict: models break lines inside strings.
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_object)
    end = 0
    for opening in list(_OPENING.finditer(text))[:_MOST_OPENINGS]:
        if opening.start() < end:
            continue
        try:
            value, end = decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            continue
        yield value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is there twice: one of its values would be lost")
    return value


def _repaired(text: str) -> Iterator[Any]:
    for part in _regions(text):
        # A string without its end was cut; closing it would pass a part for the whole.
        if len(_QUOTE.findall(part)) % 2:
            continue
        try:
            value = json_repair.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, list | dict) and _words(json.dumps(value, ensure_ascii=False)) == _words(part):
            yield value


def _regions(text: str) -> Iterator[str]:
    """From the first opening bracket to the end, and without prose behind the last closing one."""
    opening, closing = _OPENING.search(text), max(text.rfind("]"), text.rfind("}"))
    if opening is None:
        return
    # A bracket that opens behind the last closing one begins something that was cut.
    if not _OPENING.search(text, closing + 1):
        yield text[opening.start() : closing + 1]
    yield text[opening.start() :]


def _words(text: str) -> str:
    """Letters and digits alone: a repair may change the signs between them, and nothing else."""
    return "".join(filter(str.isalnum, text))
