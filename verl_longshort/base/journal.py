"""An append-only file of records that survives a killed process: one JSON object per line, the first is a header."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from longshort_reward.errors import UserError

from verl_longshort.base.files import LineError, Record, parse_record


class RecordFile:
    """The records of a command, those that an earlier, killed run finished included.

    `notes` are written into the header of a new file and not compared later. Raises UserError when the file
    was written with another header, and for a line that holds no record.
    """

    def __init__(self, path: Path, header: dict[str, Any], *, notes: dict[str, Any] | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        header = json.loads(json.dumps(header))
        self.records = _resume(path, header) if path.exists() else []
        # Half a character becomes `\\udXXX`, which JSON reads as the same.
        self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
        if self._file.tell() == 0:
            self._write({**header, **(notes or {})})

    def __enter__(self) -> "RecordFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def done(self) -> set[str]:
        """Ids of the records in the file."""
        return {record["id"] for record in self.records}

    def append(self, record: Record) -> None:
        """Add one record, with its key `id`; it is in the file when this returns."""
        self._write(record)
        self.records.append(record)

    def _write(self, content: dict[str, Any]) -> None:
        self._file.write(json.dumps(content, ensure_ascii=False) + "\n")
        self._file.flush()


def read_record_file(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """Header and records of a file that nobody is writing.

    Raises UserError when it is missing or empty, and for a line that is broken.
    """
    if not path.is_file():
        raise UserError("records", path, "no such file: run longshort eval first")
    lines = _complete_lines(path)
    if not lines:
        raise UserError("records", path, "is empty: run longshort eval first")
    header, *records = _parsed(path, lines)
    return header, records


def _resume(path: Path, header: dict[str, Any]) -> list[Record]:
    lines = _complete_lines(path)
    if len(lines) < 2:
        # A header alone says nothing of records: the file is begun again.
        lines = []
    # A line without its end is what a killed process was writing.
    os.truncate(path, sum(map(len, lines)))
    if not lines:
        return []
    before, *records = _parsed(path, lines)
    # A key that earlier versions did not write stands for an empty block.
    changed = [key for key in header if not _same(before.get(key, {}), header[key], path)]
    if changed:
        was, now = before.get(changed[0], {}), header[changed[0]]
        raise UserError(f"longshort.{changed[0]}", now, f"{path} was made with {was}: remove it or choose another name")
    return records


def _parsed(path: Path, lines: list[bytes]) -> list[Record]:
    """Header and records. Raises UserError naming a line that is broken, as a full disk or a power cut leaves them."""
    parsed = []
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_record(line.decode())
            if number > 1 and "id" not in record:
                raise LineError("has no id")
        except (UnicodeDecodeError, LineError) as error:
            reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error).partition(":")[0]
            remedy = "remove the file" if number == 1 else "remove the line; what it held is done again"
            raise UserError("records", f"{path}, line {number}", f"{reason}: {remedy}") from error
        parsed.append(record)
    return parsed


def _same(before: Any, now: Any, file: Path) -> bool:
    """Whether a value of the header is as it was.

    Earlier versions wrote paths as they were given: a relative one is the same as an absolute one to which it leads
    from the working directory, or from the file's folder or one above it.
    """
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_same, before, now, [file] * len(now)))
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(_same(before[key], now[key], file) for key in now)
    if isinstance(before, str) and isinstance(now, str) and Path(now).is_absolute():
        folders = (Path.cwd(), *file.absolute().parents)
        return any(os.path.normpath(folder / before) == os.path.normpath(now) for folder in folders)
    return bool(before == now)


def _complete_lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
