"""Checks what a command was given, in seconds and before any heavy import.

`read_records` reads a JSONL, JSON, parquet or CSV file of records, `check_model` a model path. Both raise
`UserError` with the key under which the user gave the path. `model_identity` tells apart what a path holds at
two times.
"""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from verl_longshort.base.dry_run import dry_run, is_planned

Record = dict[str, Any]
KINDS = "a .jsonl, .json, .parquet or .csv file"


def read_records(path: str | Path, *, key: str, columns: Iterable[str]) -> list[Record]:
    """All records of a `.jsonl`, `.json`, `.parquet` or `.csv` file as plain Python values, of a CSV file as
    text; each has all of `columns`.

    None in a dry run for a file that a stage before writes. Raises UserError when the file is missing, empty,
    of another kind or lacks a column.
    """
    file = Path(path).expanduser()
    if is_planned(file):
        return []
    if not file.is_file():
        raise UserError(key, path, f"no such file: give the path of {KINDS}")
    records = _read(file, key)
    if not records:
        raise UserError(key, path, "has no records: run the stage that writes it again")
    for number, record in enumerate(records, start=1):
        absent = [column for column in columns if record.get(column) is None]
        if absent:
            found = ", ".join(sorted(record)) or "none"
            raise UserError(key, path, f"record {number} lacks the column '{absent[0]}' (it has: {found})")
    return records


def check_model(path: str, *, key: str) -> None:
    """`path` is a Hugging Face model folder, or a model that the hub (or its local cache) holds.

    Raises UserError otherwise. In a dry run the folder may be one that a stage before writes, and the hub is
    asked once for the whole recipe.
    """
    folder = Path(path).expanduser()
    if is_planned(folder):
        return
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(key, path, "has no config.json: give a folder that save_pretrained wrote")
        return
    # A path under a folder that exists was meant as a path: the hub need not be asked.
    if path.count("/") != 1 or folder.parent.is_dir():
        raise UserError(key, path, "no such folder: give a Hugging Face model folder or a name on the hub")
    if dry_run() is None:
        _check_hub(path, key)


def model_identity(path: str) -> list[Any]:
    """The path with size and time of the weights: the same folder may hold another model later."""
    files = sorted(Path(path).expanduser().glob("*.safetensors"))
    return [path, [[file.name, file.stat().st_size, int(file.stat().st_mtime)] for file in files]]


def _check_hub(name: str, key: str) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        hf_hub_download(name, "config.json", etag_timeout=10)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(key, name, f"neither a folder nor a model the hub gives ({reason})") from error


def _read(file: Path, key: str) -> list[Record]:
    if file.suffix == ".parquet":
        from pyarrow import parquet
        from pyarrow.lib import ArrowInvalid

        try:
            return parquet.read_table(file).to_pylist()
        except ArrowInvalid as error:
            raise UserError(key, file, f"is not a parquet file ({error}): write it again") from error
    if file.suffix == ".jsonl":
        return _read_jsonl(file, key)
    if file.suffix == ".json":
        return _read_json(file, key)
    if file.suffix == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return list(csv.DictReader(lines))
    raise UserError(key, file, f"unknown kind '{file.suffix}': give {KINDS}")


def _read_json(file: Path, key: str) -> list[Record]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        # Many a .json file of the hub holds one record per line.
        return _read_jsonl(file, key)
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise UserError(key, file, "must hold a JSON list of objects, or one object per line")
    return content


def _read_jsonl(file: Path, key: str) -> list[Record]:
    records = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    key, file, f"line {number} is not JSON ({error.msg}): write the file again"
                ) from error
            if not isinstance(record, dict):
                raise UserError(
                    key, file, f"line {number} is not a JSON object: one record per line is expected"
                )
            records.append(record)
    return records
