"""Files: reading records with every row checked, writing in one step, models by path.

`read_records` reads a JSONL, JSON, parquet or CSV file, `check_model` checks a model path. Both raise `UserError` with
the key under which the user gave the path, in seconds and before any heavy import.
"""

import codecs
import csv
import errno
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from longshort_reward.errors import UserError
from longshort_reward.settings import SettingError
from pydantic import AfterValidator

from verl_longshort.base.dry_run import absolute, dry_run, is_planned
from verl_longshort.base.hub import hub_errors, hub_reason
from verl_longshort.base.model_files import check_files
from verl_longshort.base.rejected import Rejected

Record = dict[str, Any]
Item = TypeVar("Item")
KINDS = "a .jsonl, .json, .parquet or .csv file"
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
}
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
"""What Python's `surrogateescape` makes of a byte that is not UTF-8."""
_LONGEST_FIELD = 2**31 - 1
"""Characters of a field of a CSV file; the module's own limit is 131,072."""


class Records(list[Item]):
    """The records of a file. In a dry run a file that an earlier stage will write has none yet.

    `expected` is how many there will be when the work begins; None when that is not known before the run.
    """

    def __init__(self, items: Iterable[Item] = (), *, expected: int | None = 0) -> None:
        super().__init__(items)
        self.rejected: Sequence[Rejected] = ()
        """Those of the file that cannot be used, where its reader sets such a record aside."""
        self.expected = expected if not self else len(self)

    @classmethod
    def planned(cls, path: str | Path) -> "Records[Item]":
        """Those of a file that an earlier stage will write."""
        dry = dry_run()
        product = None if dry is None else dry.planned(path)
        return cls(expected=None if product is None else product.records)

    @classmethod
    def joined(cls, parts: Sequence["Records[Item]"]) -> "Records[Item]":
        """The records of several files."""
        joined = cls([record for part in parts for record in part])
        counts = [part.expected for part in parts]
        joined.expected = None if None in counts else sum(count for count in counts if count)
        return joined


def check_file(path: str | Path, *, key: str, kinds: str = KINDS) -> None:
    """`path` is a file that exists. Raises UserError otherwise, which asks for one of `kinds`."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise UserError(key, path, f"is a folder: give the path of {kinds}")
    if not file.is_file():
        raise UserError(key, path, f"no such file: give the path of {kinds}")


def read_records(path: str | Path, *, key: str, columns: Iterable[str]) -> Records[Record]:
    """All records of a `.jsonl`, `.json`, `.parquet` or `.csv` file as plain Python values, of a CSV file as
    text; each has all of `columns`.

    Raises UserError when the file is missing, empty, of another kind or lacks a column.
    """
    file = Path(path).expanduser()
    if is_planned(file):
        return Records.planned(file)
    check_file(path, key=key)
    records = _read(file, key)
    if not records:
        raise UserError(key, path, "has no records: run the stage that writes it again")
    for number, record in enumerate(records, start=1):
        absent = [column for column in columns if record.get(column) is None]
        if absent:
            found = ", ".join(sorted(record)) or "none"
            raise UserError(key, path, f"record {number} lacks the column '{absent[0]}' (it has: {found})")
    return Records(records)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a file in one step: a reader sees the old one, the new one, or none, never half of it.

    `durable`: the text is on the disk when this returns, also if the machine loses power. Raises OSError where it
    cannot be written; nothing of it is left then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        # Half a character becomes `\\udXXX`, which JSON reads as the same.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_to_disk(path.parent)


def sync_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # some network file systems cannot do this with folders, and need not
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(handle)


def write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    """Write JSON in one step."""
    write_text(path, json.dumps(content, indent=indent, default=str) + "\n")


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    """Write all records in one step, one JSON object per line."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def write_parquet(path: Path, records: Sequence[Record]) -> None:
    """Write all records in one step, as a parquet file."""
    import pandas as pd

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    pd.DataFrame(list(records)).to_parquet(temporary)
    temporary.replace(path)


def sibling_path(path: Path, suffix: str) -> Path:
    """The path of a file that belongs to `path`, such as `thoughts.rejects.jsonl` to `thoughts.jsonl`."""
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.{suffix}.jsonl")


def check_exists(path: Path, *, key: str) -> None:
    """Raise UserError when `path` does not exist, nor will when the stages before have run."""
    if not (path.exists() or is_planned(path)):
        raise UserError(key, path, "neither exists nor will")


def check_model(path: str, *, key: str, adapters: bool = False) -> None:
    """`path` is a Hugging Face model folder, or a model that the hub (or its local cache) holds.

    Raises UserError otherwise, also for damaged weights, and for a LoRA adapter where none is taken
    (`model_files.check_files`). In a dry run the folder may be one that a stage before writes, and the hub is asked
    once for the whole recipe.
    """
    folder = Path(path).expanduser()
    if is_planned(folder):
        return
    if folder.is_dir():
        check_files(folder, key=key, given=path, adapters=adapters)
        return
    # A path under a folder that exists was meant as a path: the hub need not be asked.
    if path.count("/") != 1 or folder.parent.is_dir():
        raise UserError(key, path, "no such folder: give a Hugging Face model folder or a name on the hub")
    if dry_run() is None:
        _check_hub(path, key)


def check_positions(path: str, tokens: int, *, key: str) -> None:
    """A request for `tokens` can ever fit into the model: it has more positions, for prompt and answer together.

    Nothing is known of a model that is not in a local folder, nor of one whose positions are stretched. Raises
    SettingError.
    """
    file = Path(path).expanduser() / "config.json"
    if is_planned(file.parent) or not file.is_file():
        return
    config = json.loads(file.read_text(encoding="utf-8"))
    positions = config.get("max_position_embeddings")
    stretched = "factor" in {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    if positions is not None and not stretched and tokens >= positions:
        remedy = f"does not fit into the {positions} positions of {path}, prompt included: lower it"
        raise SettingError(key, tokens, remedy)


def model_setting(path: str, key: str = "", *, adapters: bool = False) -> str:
    """`path` if it passes `check_model`; for validators of a block in which it stands at `key`, hence SettingError."""
    try:
        check_model(path, key=key, adapters=adapters)
    except UserError as error:
        raise SettingError(error.key, error.value, error.remedy) from error
    return path


ModelPath = Annotated[str, AfterValidator(model_setting)]
"""A setting that passes `check_model`."""


def absolute_model(model: str) -> str:
    """A folder as an absolute path, a name on the hub as it is: so that a file that names it can be used elsewhere."""
    folder = Path(model).expanduser()
    return absolute(folder) if folder.is_dir() or is_planned(folder) or model.count("/") > 1 else model


def recorded_model(model: str, file: Path, *, key: str) -> str:
    """The model or tokenizer that a record in `file` names, as an absolute path or as a name on the hub.

    Earlier versions wrote paths as they were given. Such a relative path is looked for in the working directory, then
    in the file's folder and those above it.

    Raises:
        UserError: naming `key` and the folders, when it is in none of them and no model of the hub.
    """
    if Path(model).expanduser().is_absolute():
        return model
    folders = [Path.cwd(), *file.expanduser().absolute().parents]
    for folder in folders:
        if (folder / model).is_dir():
            return absolute(folder / model)
    try:
        check_model(model, key=key)
    except UserError as error:
        tried = ", ".join(dict.fromkeys(map(str, folders)))
        remedy = f"{file} names this model, and it is neither in {tried} nor on the hub: give its path as {key}"
        raise UserError(key, model, remedy) from error
    return model


def model_identity(path: str) -> list[Any]:
    """The path with size and time of the weights: the same folder may hold another model later."""
    files = sorted(Path(path).expanduser().glob("*.safetensors"))
    return [path, [[file.name, file.stat().st_size, int(file.stat().st_mtime)] for file in files]]


def _check_hub(name: str, key: str) -> None:
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(name, "config.json", etag_timeout=10)
    except hub_errors() as error:
        raise UserError(key, name, f"neither a folder nor a model the hub gives ({hub_reason(error)})") from error


class LineError(ValueError):
    """A line of a file that is no record; the message says why."""


def text_lines(file: Path, *, key: str) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers from 1.

    Raises UserError naming `key`, file and line for a compressed file and for one that is not UTF-8.
    """
    check_plain(file, key=key)
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                _check_bytes(line, key, f"{file}, line {number}")
                yield number, line


def parse_record(line: str) -> Record:
    """The JSON object in a line. Raises LineError when there is none."""
    try:
        record = json.loads(line)
    # ValueError: also a number of thousands of digits; RecursionError: thousands of brackets
    except (ValueError, RecursionError) as error:
        raise LineError(f"is not JSON ({getattr(error, 'msg', error)}): write the file again") from error
    if not isinstance(record, dict):
        raise LineError("is not a JSON object: one record per line is expected")
    return record


def check_plain(file: Path, *, key: str) -> None:
    """Raise UserError when a file is compressed, or a text in another encoding than UTF-8."""
    with file.open("rb") as content:
        head = content.read(8)
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise UserError(key, file, f"is compressed ({name}): unpack it and give {KINDS}")
    for mark, name in _OTHER_ENCODINGS.items():
        if head.startswith(mark):
            raise UserError(key, f"{file}, line 1", f"is {name}, not UTF-8: convert it (iconv -f {name} -t UTF-8)")


def _check_bytes(text: str, key: str, where: str) -> None:
    escaped = _ESCAPED_BYTE.search(text)
    if escaped is not None:
        byte = ord(escaped.group()) - 0xDC00
        remedy = "convert the file, such as by iconv -f LATIN1 -t UTF-8"
        raise UserError(key, where, f"is not UTF-8 (byte 0x{byte:02x}): {remedy}")


def _read(file: Path, key: str) -> list[Record]:
    check_plain(file, key=key)
    if file.suffix == ".parquet":
        return _read_parquet(file, key)
    if file.suffix == ".jsonl":
        return _read_jsonl(file, key)
    if file.suffix == ".json":
        return _read_json(file, key)
    if file.suffix == ".csv":
        return _read_csv(file, key)
    raise UserError(key, file, f"unknown kind '{file.suffix}': give {KINDS}")


def _read_parquet(file: Path, key: str) -> list[Record]:
    from pyarrow import parquet
    from pyarrow.lib import ArrowException

    try:
        table = parquet.read_table(file)
    except (ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(key, file, f"is not a parquet file ({reason}): write it again") from error
    try:
        return table.to_pylist()
    except ValueError as error:  # a text that is not UTF-8, a time that Python cannot hold
        for index in range(table.num_rows):
            try:
                table.slice(index, 1).to_pylist()
            except ValueError as first:
                raise UserError(key, f"{file}, record {index + 1}", f"cannot be read ({first}): correct it") from error
        raise


def _read_csv(file: Path, key: str) -> list[Record]:
    csv.field_size_limit(_LONGEST_FIELD)
    records: list[Record] = []
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.DictReader(lines)
        try:
            for record in reader:
                _check_bytes("".join(map(str, record.values())), key, f"{file}, line {reader.line_num}")
                records.append(record)
        except csv.Error as error:
            raise UserError(key, f"{file}, line {reader.line_num}", f"is not CSV ({error}): correct it") from error
    return records


def _read_json(file: Path, key: str) -> list[Record]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        # Many a .json file of the hub holds one record per line; where it is neither, this names the line.
        return _read_jsonl(file, key)
    if isinstance(content, dict) and "\n" not in file.read_text(encoding="utf-8-sig").strip():
        return [content]
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise UserError(key, file, "must hold a JSON list of objects, or one object per line")
    return content


def _read_jsonl(file: Path, key: str) -> list[Record]:
    records = []
    for number, line in text_lines(file, key=key):
        try:
            records.append(parse_record(line))
        except LineError as error:
            raise UserError(key, file, f"line {number} {error}") from error
    return records
