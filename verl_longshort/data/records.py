"""The records that the data stages hand to each other, and reading them with every line checked.

`Chain` goes into `chunk`, `Chunked` comes out of it, `Weighed` out of `weigh`; `Selected` has a choice added, and
`coldstart` makes each `Weighed` a `Trajectory`. A record may hold more keys than these; they are passed on. In a file
the keys stand in the order in which the record was given them. The same schemas as a table: `docs/data.md`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from longshort_reward.errors import UserError
from longshort_reward.protocol import Role, parse_turn
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from typing_extensions import Self

from verl_longshort.base.characters import half_character, whole_characters
from verl_longshort.base.dry_run import is_planned
from verl_longshort.base.files import LineError, Record, Records, check_file, parse_record, read_records, text_lines
from verl_longshort.base.rejected import Rejected

Filled = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class StageRecord(BaseModel):
    """Base class of all records and of their parts."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, serialize_by_alias=True)

    _keys: tuple[str, ...] = PrivateAttr(())

    @property
    def more(self) -> Mapping[str, Any]:
        """The keys that the class does not know."""
        return self.__pydantic_extra__ or {}

    def to_record(self) -> Record:
        """As it stands in a file."""
        return self.model_dump()

    @model_validator(mode="wrap")
    @classmethod
    def _keep_order(cls, content: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        record = validate(content)
        if isinstance(content, dict):
            record._keys = tuple(content)
        return record

    @model_serializer(mode="wrap")
    def _in_order(self, serialize: SerializerFunctionWrapHandler) -> Record:
        content = serialize(self)
        return {key: content[key] for key in self._keys}


class Chain(StageRecord):
    """A problem with a long chain of thought."""

    id: Filled
    problem: Filled
    ground_truth: str | int | float
    chain: Filled


class Thought(StageRecord):
    """A piece of a chain; `kind` says in a word what it does."""

    text: Filled
    kind: str


class Chunked(Chain):
    """A chain cut into thoughts: their texts joined by `separator` are the chain."""

    separator: str
    thoughts: Annotated[Sequence[Thought], Field(min_length=1)]

    @property
    def texts(self) -> list[str]:
        """Of the thoughts."""
        return [thought.text for thought in self.thoughts]

    @property
    def labels(self) -> Any:
        """The thoughts that the chain came with, if any: what its generator says of them."""
        return self.more.get("labels")

    @model_validator(mode="after")
    def _nothing_lost(self) -> Self:
        if self.separator.join(self.texts) != self.chain:
            raise ValueError("the texts of the thoughts joined by the separator are not the chain")
        return self


class AnswerCounts(StageRecord):
    """Answers behind one prefix: how many there were and how many were correct."""

    correct: Annotated[Count, Field(alias="right")]
    samples: Count
    surprisals: Annotated[Sequence[float], Field(alias="surprises")] = ()
    """-log p of each answer, in nats; none in records that another program wrote."""
    ended: Count | None = None
    """How many ended by themselves; the others were cut off, and count as incorrect. None: not recorded."""
    example: str | None = None
    """What the first one wrote. None: not recorded."""

    @property
    def rate(self) -> float:
        """The observed accuracy."""
        return self.correct / self.samples


class RolloutCounts(AnswerCounts):
    """Rollouts from one prefix: solutions in the model's own words."""

    answers: Sequence[str] = ()
    """The final answer of each, empty where there is none; none in records that another program wrote."""
    forced: AnswerCounts | None = None
    """Answers that had to be named at once; their surprisal is of the answer's tokens alone."""


class WeighedThought(Thought, RolloutCounts):
    """A thought with what rollouts from the prefix that ends with it have shown (paper, section 3)."""

    p: Share
    p_low: Share
    p_high: Share
    tokens: Count
    m: float
    delta: float
    bound: float
    flip: Share
    delta_flip: Share | None = None
    """None in records that another program wrote."""


class Weighed(Chunked):
    """A chain whose thoughts are weighed; `p_start` is of rollouts from the problem alone."""

    thoughts: Annotated[Sequence[WeighedThought], Field(min_length=1)]
    p_start: RolloutCounts
    tokenizer: Filled
    model: Filled
    joining: Mapping[str, str] | None = None
    """The words between problem, thoughts and answer. None in records that another program wrote."""


class SelectedThought(WeighedThought):
    """A weighed thought that stays long or not."""

    keep: bool


class Selected(Weighed):
    """A weighed chain with the choice that `rule` made."""

    thoughts: Annotated[Sequence[SelectedThought], Field(min_length=1)]
    rule: Filled


class TrajectoryTurn(StageRecord):
    """What a role says when it is its turn, tags included."""

    role: Annotated[Role, Field(strict=False)]
    text: str


class Trajectory(StageRecord):
    """A joint solution of a problem; supervised fine-tuning needs no more of it than this."""

    problem: str
    turns: Sequence[TrajectoryTurn]


class ColdStartTrajectory(Trajectory):
    """A trajectory that `coldstart` made of a weighed chain."""

    id: Filled
    ground_truth: str | int | float
    rule: Filled
    kept: Sequence[Count]
    """Indexes of the thoughts that stayed long."""
    thoughts: Count
    """How many the chain had."""
    tokens: Mapping[str, Count]
    """Of the chain and of what each role says."""


FILES_KEY = "data.train_files"
"""Key of the files that supervised fine-tuning reads."""

RecordT = TypeVar("RecordT", bound=StageRecord)
ChainT = TypeVar("ChainT", bound=Chain)


def read_stage(path: str | Path, model: type[ChainT], *, key: str, reject: bool = False) -> Records[ChainT]:
    """The records of the JSONL file `path`, each with an id that no other record has.

    A chain without an id gets one of 16 hexadecimal digits from its problem and chain. None in a dry run for a file
    that a stage before writes. With `reject`, a record with half a character is among the `rejected` ones of the
    result, otherwise it is an error.

    Raises:
        UserError: naming `key`, the file and the line: no file, no records, no JSON, another schema, an id
            that was there before.
    """
    file = Path(path).expanduser()
    if is_planned(file):
        return Records.planned(file)
    check_file(path, key=key, kinds="a .jsonl file")
    records: dict[str, ChainT] = {}
    rejected: list[Rejected] = []
    for number, line in text_lines(file, key=key):
        where = f"{file}, line {number}"
        try:
            content = parse_record(line)
        except LineError as error:
            raise UserError(key, where, str(error)) from error
        content = _with_id(content)
        halves = (half_character(value) for value in content.values() if isinstance(value, str))
        if reject and (half := next(filter(None, halves), None)) is not None:
            detail = f"{where}: {half}, the text was cut inside it"
            rejected.append(Rejected(id=whole_characters(str(content["id"])), reason="half a character", detail=detail))
            continue
        record = _validated(content, model, key, where)
        if record.id in records:
            raise UserError(key, where, f"the id {record.id!r} is there twice: give each its own")
        records[record.id] = record
    if not records:
        reason = f"; the first one, {rejected[0]}" if rejected else ": run the stage that writes it again"
        raise UserError(key, path, f"has no records{reason}")
    found = Records(records.values())
    found.rejected = rejected
    return found


def load_trajectories(
    paths: str | Path | Sequence[str | Path], role: Role, *, key: str = FILES_KEY
) -> Records[Trajectory]:
    """The records of all files in which `role` has a turn; none yet of files that an earlier stage will write.

    Raises UserError for a file that cannot be read, a turn that breaks the protocol, and when `role` has no
    turn.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    parts = []
    for file in files:
        found = read_records(file, key=key, columns=("problem", "turns"))
        checked = [_trajectory(record, f"{file}, record {number}", key) for number, record in enumerate(found, start=1)]
        parts.append(Records(checked, expected=found.expected))
    records = Records.joined(parts)
    if not records:
        return records
    own = [record for record in records if any(turn.role == role for turn in record.turns)]
    if not own:
        raise UserError(key, ", ".join(map(str, files)), f"no record has a turn of the role '{role}'")
    return Records(own)


def _validated(record: Record, model: type[RecordT], key: str, where: str) -> RecordT:
    """The record as a `model`. Raises UserError naming `key`, `where` it stands and the first thing that is wrong."""
    try:
        return model.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        reason = f"{place.lstrip('.') or 'record'}: {first['msg']}{more}; see docs/data.md"
        raise UserError(key, where, reason) from error


def _with_id(record: Record) -> Record:
    if "id" in record:
        return record
    content = json.dumps([record.get("problem"), record.get("chain")])
    return {"id": hashlib.sha256(content.encode()).hexdigest()[:16], **record}


def _trajectory(record: Record, where: str, key: str) -> Trajectory:
    for number, turn in enumerate(record["turns"], start=1):
        if not isinstance(turn, dict) or not {"role", "text"} <= turn.keys():
            raise UserError(key, where, f"turn {number} must be {{'role': ..., 'text': ...}}")
        if turn["role"] not in tuple(Role):
            raise UserError(key, where, f"turn {number} has the role '{turn['role']}', not long or short")
        parsed = parse_turn(Role(turn["role"]), turn["text"])
        if not parsed.ok:
            raise UserError(key, where, f"turn {number} breaks the protocol ({parsed.fault}): correct it")
    return _validated(record, Trajectory, key, where)
