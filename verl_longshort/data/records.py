"""The records that the data stages hand to each other, and reading them with every line checked.

`Chain` goes into `chunk`, `Chunked` comes out of it, `Weighed` out of `weigh`, `Selected` has a choice added.
Each holds all of the one before and may hold more: other keys are kept. The models only check; stages work on
the plain dictionaries that `read_stage` gives. The same schemas as a table: `docs/data.md`.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from longshort_reward.errors import UserError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from verl_longshort.base.dry_run import is_planned
from verl_longshort.base.files import Record, Records

Filled = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class Chain(_Model):
    """A problem with a long chain of thought."""

    id: Filled
    problem: Filled
    ground_truth: str | int | float
    chain: Filled


class Thought(_Model):
    """A piece of a chain; `kind` says in a word what it does."""

    text: Filled
    kind: str


class Chunked(Chain):
    """A chain cut into thoughts: their texts joined by `separator` are the chain."""

    separator: str
    thoughts: Annotated[Sequence[Thought], Field(min_length=1)]

    @model_validator(mode="after")
    def _nothing_lost(self) -> "Chunked":
        if self.separator.join(thought.text for thought in self.thoughts) != self.chain:
            raise ValueError("the texts of the thoughts joined by the separator are not the chain")
        return self


class WeighedThought(Thought):
    """A thought with what rollouts from the prefix that ends with it have shown (paper, section 3)."""

    tokens: Count
    right: Count
    samples: Count
    p: Share
    p_low: Share
    p_high: Share
    m: float
    delta: float
    bound: float
    flip: Share


class Tally(_Model):
    """Right answers among rollouts."""

    right: Count
    samples: Count


class Weighed(Chunked):
    """A chain whose thoughts are weighed; `p_start` is of rollouts from the problem alone."""

    thoughts: Annotated[Sequence[WeighedThought], Field(min_length=1)]
    p_start: Tally
    tokenizer: Filled
    model: Filled


class SelectedThought(WeighedThought):
    """A weighed thought that stays long or not."""

    keep: bool


class Selected(Weighed):
    """A weighed chain with the choice that `rule` made."""

    thoughts: Annotated[Sequence[SelectedThought], Field(min_length=1)]
    rule: Filled


def read_stage(path: str | Path, model: type[Chain], *, key: str) -> Records[Record]:
    """The records of the JSONL file `path`, each as `model` wants it, with an id that no other record has.

    A chain without an id gets one from its content. None in a dry run for a file that a stage before writes.

    Raises:
        UserError: naming `key`, the file and the line: no file, no records, no JSON, another schema, an id
            that was there before.
    """
    file = Path(path).expanduser()
    if is_planned(file):
        return Records.planned(file)
    if not file.is_file():
        raise UserError(key, path, "no such file: give the path of a .jsonl file")
    records: dict[str, Record] = {}
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                record = _checked(line, model, key, where := f"{file}, line {number}")
                if record["id"] in records:
                    raise UserError(key, where, f"the id {record['id']!r} is there twice: give each its own")
                records[record["id"]] = record
    if not records:
        raise UserError(key, path, "has no records: run the stage that writes it again")
    return Records(records.values())


def content_id(record: Record) -> str:
    """An id made of problem and chain: 16 hexadecimal digits."""
    text = json.dumps([record.get("problem"), record.get("chain")])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _checked(line: str, model: type[Chain], key: str, where: str) -> Record:
    try:
        record: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(key, where, f"is not JSON ({error.msg}): write the file again") from error
    if not isinstance(record, dict):
        raise UserError(key, where, "is not a JSON object: one record per line is expected")
    if "id" not in record:
        record = {"id": content_id(record), **record}
    try:
        model.model_validate(record)
    except ValidationError as error:
        raise UserError(key, where, _reason(error)) from error
    return record


def _reason(error: ValidationError) -> str:
    first = error.errors()[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place.lstrip('.') or 'record'}: {first['msg']}{more}; see docs/data.md"
