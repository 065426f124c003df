"""Disk full, folder read-only, clock moved back: one line, and nothing is lost."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from verl_longshort.base.files import write_text
from verl_longshort.base.journal import RecordFile, read_record_file
from verl_longshort.cli import main
from verl_longshort.evaluation import published


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_command_that_cannot_write_says_so_in_one_line(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, content: Any) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(published, "write_json", refuse)
    done = CliRunner().invoke(main, ["published", "--json", "/disk/x.json"])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    *_, line = done.output.splitlines()
    assert line.startswith(f"Error: /disk/x.json: {os.strerror(number)}; make room, or the folder writable")


def test_other_errors_of_the_system_are_no_such_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, content: Any) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(published, "write_json", fail)
    assert isinstance(CliRunner().invoke(main, ["published", "--json", "x.json"]).exception, OSError)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "table.txt"
    write_text(file, "old")
    # what is written to /dev/full finds a full disk
    (tmp_path / "table.txt.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as error:
        write_text(file, "new" * 100_000)
    assert error.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["table.txt"]
    assert file.read_text() == "old"


def test_records_are_read_whatever_the_clock_says(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    with RecordFile(file, {"name": "x"}) as records:
        records.append({"id": "1"})
    # as if the clock had been moved back by a day since
    os.utime(file, (file.stat().st_mtime + 86400,) * 2)
    with RecordFile(file, {"name": "x"}) as records:
        assert records.done == {"1"}
        records.append({"id": "2"})
    assert [record["id"] for record in read_record_file(file)[1]] == ["1", "2"]
