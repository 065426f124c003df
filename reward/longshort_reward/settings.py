"""Typed settings: pydantic models whose errors name the key, the value and the remedy.

`Settings` is the base class of every block of configuration. Unknown keys are rejected, so that a typo
never trains the wrong thing. What a field accepts is said by its type; `Remedy` adds what to do about a value that
it does not accept:

    class Weigh(Settings):
        samples: PositiveInt = 8
        mode: Annotated[Mode, Remedy("must be fixed or adaptive")]

    Weigh.parse({"samples": 0}, "longshort")     # UserError: longshort.samples = 0: must be a whole number from 1 on
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import AllowInfNan, BaseModel, ConfigDict, Strict, ValidationError
from typing_extensions import Self

from longshort_reward.errors import UserError


@dataclass(frozen=True)
class Remedy:
    """What to do about a value that a field does not accept; put into the field's `Annotated` type.

    `for_type` is said instead when the value is of another type altogether.
    """

    text: str
    for_type: str | None = None


PositiveInt = Annotated[int, Strict(), Ge(1), Remedy("must be a whole number from 1 on")]
NonNegativeInt = Annotated[int, Strict(), Ge(0), Remedy("must be a whole number from 0 on")]
PositiveFloat = Annotated[
    float, Strict(), Gt(0), AllowInfNan(False), Remedy("must be above 0", "must be a finite number")
]
Seconds = Annotated[float, Strict(), Gt(0), AllowInfNan(False), Remedy("must be a number of seconds above 0")]
Share = Annotated[float, Strict(), Ge(0), Le(1), AllowInfNan(False), Remedy("must be a share from 0 to 1")]
Weight = Annotated[
    float,
    Strict(),
    Ge(0),
    AllowInfNan(False),
    Remedy("must be 0 or more; 0 switches the term off", "must be a finite number"),
]


class SettingError(UserError, ValueError):
    """A key of the block that is being validated cannot be used; raised by validators.

    `key` is relative to the block, such as `limit` or `llm.model`; empty for the block itself.
    """


class Settings(BaseModel):
    """A block of configuration. Never changed after it was made."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, populate_by_name=True, validate_default=True
    )

    @classmethod
    def parse(cls, block: Any, where: str = "longshort") -> Self:
        """Check a block of plain containers that stands at the key `where`; "" for command-line options.

        Raises:
            UserError: for the first key that is unknown, missing, or holds a value that cannot be used.
        """
        try:
            return cls.model_validate(block)
        except ValidationError as error:
            raise as_user_error(cls, error, where) from None


def as_user_error(model: type[BaseModel], error: ValidationError, where: str) -> UserError:
    """The first problem of a validation as an error that names the key, the value and the remedy."""
    # An unknown key first: it is most likely the misspelt form of one that is missing.
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    path, value = first["loc"], first["input"]
    raised = first.get("ctx", {}).get("error")
    if isinstance(raised, SettingError):
        return UserError(_key(where, (*path, *([raised.key] if raised.key else []))), raised.value, raised.remedy)
    if first["type"] == "missing":
        value = None
    return UserError(_key(where, path), value, _remedy(model, first, raised))


def _remedy(model: type[BaseModel], problem: Any, raised: object) -> str:
    kind, path = problem["type"], problem["loc"]
    if kind in ("extra_forbidden", "missing"):
        known = _known_keys(_block_in(_type_at(model, path[:-1])[0]) or model)
        if kind == "missing":
            return f"missing; keys of this block: {', '.join(known)}"
        near = get_close_matches(str(path[-1]), known, n=1)
        return "unknown key; " + (f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}")
    annotation, metadata = _type_at(model, path)
    block = _block_in(annotation)
    if block is not None and kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"must be a block with the keys {', '.join(_known_keys(block))}"
    if raised is not None:
        return str(raised)
    given = next((part for part in metadata if isinstance(part, Remedy)), None)
    if given is not None:
        wrong_type = kind.endswith(("_type", "_parsing", "_from_float")) or kind == "finite_number"
        return given.for_type if wrong_type and given.for_type else given.text
    if kind in ("enum", "literal_error"):
        return f"must be one of {', '.join(_choices(annotation))}"
    return str(problem["msg"])[0].lower() + str(problem["msg"])[1:]


def _key(where: str, path: Sequence[int | str]) -> str:
    if not where:
        return "--" + str(path[0]).replace("_", "-") if path else "options"
    return where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _known_keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _type_at(model: type[BaseModel], path: Sequence[int | str]) -> tuple[Any, Sequence[Any]]:
    """The type at a place in a block and what its `Annotated` adds: of a field, or of a member of a sequence."""
    annotation: Any = model
    metadata: Sequence[Any] = ()
    for part in path:
        block = _block_in(annotation)
        if block is not None:
            named = {field.alias or name: field for name, field in block.model_fields.items()}
            field = named.get(str(part)) or block.model_fields.get(str(part))
            if field is None:
                return None, ()
            annotation, metadata = field.annotation, field.metadata
        else:
            members = [kind for kind in get_args(annotation) if kind not in (None, Ellipsis, type(None))]
            annotation = members[-1] if members else None
            metadata = getattr(annotation, "__metadata__", ())
    return annotation, metadata


def _block_in(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) in (None, Union, UnionType, Annotated):
        return next((kind for kind in _classes(annotation) if issubclass(kind, BaseModel)), None)
    return None


def _choices(annotation: Any) -> list[str]:
    enums = [kind for kind in _classes(annotation) if issubclass(kind, Enum)]
    return [str(member.value) for member in enums[0]] if enums else [str(value) for value in get_args(annotation)]


def _classes(annotation: Any) -> Iterator[type]:
    """The classes in a type such as `Mode | None`."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from _classes(part)
