"""Checks the data of a training run: every row, and every prompt with every model of the run. Imports no verl."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from omegaconf import DictConfig, OmegaConf

from verl_longshort.base.dry_run import is_planned, planning
from verl_longshort.base.files import Record, Records, read_records
from verl_longshort.engines.tokenizers import check_chat, other_ends, said_of_system
from verl_longshort.problems.reader import RowError
from verl_longshort.problems.verl_rows import COLUMNS, check_row
from verl_longshort.verl_plugin.checks.prompts import PromptMaker

_SPLITS = ("data.train_files", "data.val_files")
_KINDS = (".parquet", ".json", ".jsonl")
"""What verl's data set reads."""
_PATTERN = re.compile(r"[*?\[\]]|::")
"""In a path, verl's data set (`datasets.load_dataset`) takes it for several files."""
_NAMED = 3
"""Rows of a kind that a message names."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The problems of one of verl's data settings."""

    key: str
    problems: Sequence[str]
    places: Sequence[str]
    """File and record of each problem."""
    expected: int | None
    """How many there will be; None when that is not known before the run."""


def check_data(config: DictConfig, makers: Sequence[PromptMaker], *, agent_loop: str, prompt_key: str) -> list[str]:
    """Check rows and prompts of a run; what a user should know of them, a sentence each.

    Args:
        makers: how each model's prompts are made. In a plan those of models that do not exist yet are left out.
        agent_loop: the only one that rows may name.
        prompt_key: setting of the system message; `{role}` stands for the role.

    Raises:
        UserError: naming files and rows that cannot be used.
    """
    data = config.data
    train, val = (read_split(OmegaConf.select(config, key), key, agent_loop=agent_loop) for key in _SPLITS)
    notes = [*_repeated(train, val)]
    usable = [maker for maker in makers if not (planning() and _is_away(maker.path))]
    for maker in usable:
        notes += _check_maker(maker, prompt_key.replace("{role}", maker.role))
    long = {split.key: _overlong(split, usable, data.max_prompt_length) for split in (train, val)}
    if any(long.values()):
        notes.append(_left_out(config, [train, val], long))
    counts = {}
    for split, most in ((train, data.train_max_samples), (val, data.val_max_samples)):
        kept = None if split.expected is None else split.expected - len(long[split.key])
        counts[split.key] = kept if kept is None or most <= 0 else min(kept, most)
    _check_counts(config, counts)
    # one policy may play both roles
    return list(dict.fromkeys(notes))


def read_all(files: str | Sequence[str], *, key: str, columns: Sequence[str]) -> Records[Record]:
    """The records of one of verl's data settings, a file or several; see `read_records`."""
    return Records.joined([read_records(path, key=key, columns=columns) for path in paths_of(files)])


def paths_of(files: str | Sequence[str]) -> list[str]:
    """The files of one of verl's data settings."""
    return [files] if isinstance(files, str) else list(files)


def read_split(files: str | Sequence[str], key: str, *, agent_loop: str) -> Split:
    """The problems of one of verl's data settings. Raises UserError naming a file and a row that cannot be used."""
    problems, places, schemas, parts = [], [], {}, []
    for path in paths_of(files):
        if Path(path).suffix not in _KINDS:
            raise UserError(key, path, f"verl's data set reads {', '.join(_KINDS)}: write it as one of these")
        if pattern := _PATTERN.search(path):
            remedy = f"verl's data set takes the character {pattern.group()} for a pattern: rename file or folder"
            raise UserError(key, path, remedy)
        rows = read_records(path, key=key, columns=COLUMNS)
        parts.append(rows)
        for number, row in enumerate(rows, start=1):
            try:
                problems.append(check_row(row))
            except RowError as error:
                raise UserError(key, path, f"record {number} {error}") from error
            if row.get("agent_name") not in (None, agent_loop):
                remedy = f"record {number} names the agent loop {row['agent_name']}: leave the column agent_name out"
                raise UserError(key, path, remedy)
            places.append(f"{path}, record {number}")
        if rows:
            schemas[path] = _schema(path, rows, key)
    _check_alike(schemas, key)
    return Split(key=key, problems=problems, places=places, expected=Records.joined(parts).expected)


def _schema(path: str, rows: Records[Record], key: str) -> Any:
    """The types of the columns, as verl's data set will hold them."""
    import pyarrow
    from pyarrow import parquet

    file = Path(path).expanduser()
    if file.suffix == ".parquet":
        return parquet.read_schema(file)
    try:
        return pyarrow.Table.from_pylist(rows).schema
    except (pyarrow.ArrowException, UnicodeError) as error:
        reason = str(error).splitlines()[0]
        remedy = f"its columns mix types, which verl's data set cannot hold ({reason}): give each column one type"
        raise UserError(key, path, remedy) from error


def _check_alike(schemas: dict[str, Any], key: str) -> None:
    """Raise UserError when files cannot be joined: verl joins them column by column."""
    if len(schemas) < 2:
        return
    from datasets import Features, Value

    seen: dict[str, tuple[str, Any]] = {}
    for path, schema in schemas.items():
        for name, kind in Features.from_arrow_schema(schema.remove_metadata()).items():
            before, known = seen.setdefault(name, (path, kind))
            if known != kind and Value("null") not in (known, kind):
                remedy = (
                    f"its column {name} has other fields or types than that of {before}, and verl cannot join the "
                    "files: write both with the same fields, or with that column as a JSON text"
                )
                raise UserError(key, path, remedy)


def _repeated(train: Split, val: Split) -> list[str]:
    notes = []
    again = len(train.problems) - len(set(train.problems))
    if again:
        notes.append(f"{again} of the {len(train.problems)} problems of {train.key} are there more than once")
    shared = len(set(train.problems) & set(val.problems))
    if shared:
        notes.append(f"{shared} problems of {val.key} are also in {train.key}: validation is no held-out test")
    return notes


def _is_away(path: str) -> bool:
    """Whether a plan cannot know a model's tokenizer: a stage before will write it, it is on the hub, or only the
    model's config.json is here."""
    return is_planned(path) or not any(Path(path).expanduser().glob("tokenizer*"))


def _check_maker(maker: PromptMaker, prompt_key: str) -> list[str]:
    check_chat(
        maker.tokenizer,
        maker.path,
        key=maker.key,
        system=maker.system,
        prompt_key=prompt_key,
        template_key=maker.key.replace(".path", ".custom_chat_template"),
        protocol=maker.protocol,
    )
    notes = [said_of_system(maker.tokenizer, maker.path, system=maker.system, prompt_key=prompt_key)]
    if others := other_ends(maker.tokenizer, maker.path):
        named = ", ".join(map(repr, maker.tokenizer.convert_ids_to_tokens(others)))
        own = repr(maker.tokenizer.eos_token)
        notes.append(f"{maker.key}: the tokenizer ends with {own} and the model with {named}; turns end at any of them")
    return [note for note in notes if note]


def _overlong(split: Split, makers: Sequence[PromptMaker], limit: int) -> dict[int, tuple[int, str]]:
    """Position -> tokens and role of the prompts that are too long, the longest of each problem."""
    found: dict[int, tuple[int, str]] = {}
    for maker in makers:
        what = f"measuring {len(split.problems)} prompts of {split.key} ({maker.role})"
        for index, tokens in maker.overlong(split.problems, limit, what=what).items():
            found[index] = max(found.get(index, (0, "")), (tokens, maker.role))
    return found


def _left_out(config: DictConfig, splits: Sequence[Split], long: dict[str, dict[int, tuple[int, str]]]) -> str:
    """A sentence on the prompts that are left out. Raises UserError when they are not to be."""
    told = []
    for split in splits:
        found = long[split.key]
        first = [f"{split.places[at]}: {found[at][0]} ({found[at][1]})" for at in sorted(found)[:_NAMED]]
        if found:
            more = "; …" if len(found) > _NAMED else ""
            told.append(f"{len(found)} of {len(split.problems)} prompts of {split.key} [{'; '.join(first)}{more}]")
    longest = max(tokens for found in long.values() for tokens, _ in found.values())
    limit, key = config.data.max_prompt_length, "data.filter_overlong_prompts"
    if config.data.filter_overlong_prompts:
        return f"left out, because they have more than data.max_prompt_length={limit} tokens: {' and '.join(told)}"
    remedy = (
        f"with system message and chat template, {' and '.join(told)} have more tokens: set {longest} for all of them, "
        f"or leave them out by {key}=true"
    )
    raise UserError("data.max_prompt_length", limit, remedy)


def _check_counts(config: DictConfig, counts: dict[str, int | None]) -> None:
    batch, fetched = config.data.train_batch_size, config.data.gen_batch_size
    train, val = (counts[key] for key in _SPLITS)
    if batch <= 0 or (train is not None and batch > train):
        raise UserError("data.train_batch_size", batch, f"must be from 1 to the number of problems, {train}")
    if fetched is not None and (fetched <= 0 or batch % fetched):
        raise UserError("data.gen_batch_size", fetched, f"must divide data.train_batch_size, {batch}; or leave it null")
    if val == 0:
        raise UserError("data.val_files", config.data.val_files, "no problem is left to validate with")
