"""Folders that are replaced as a whole: every way to write their path, what cannot be renamed, kills in between."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from longshort_reward.errors import UserError
from safetensors import SafetensorError

from verl_longshort.base import folders
from verl_longshort.base.errors import RunDiedError
from verl_longshort.base.folders import contents, lock_file, real_folder, replace_folder, restore, work_folder, writing


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def read(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def make_new(target: Path) -> Path:
    shutil.rmtree(work_folder(target), ignore_errors=True)
    return write(work_folder(target) / "global_step_1" / "huggingface", config="new", weights="new")


def replace(target: Path) -> None:
    replace_folder(make_new(target), target)


NEW = {"config": "new", "weights": "new"}


@pytest.mark.parametrize("given", ["out/", "out/.", "out/../out", "./out", "~/out", "link", "out//"])
def test_each_spelling_means_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "out", config="old", vocab="old")
    (tmp_path / "link").symlink_to("out")
    target = real_folder(given, key="k")
    assert target == tmp_path / "out"
    for _ in range(2):
        replace(target)
        assert read(tmp_path / "out") == NEW
    assert {path.name for path in tmp_path.iterdir()} == {"out", "link", "out.partial"}


def test_the_working_folder_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path / "out", config="old"))
    target = real_folder(".", key="k")
    replace(target)
    assert read(tmp_path / "out") == NEW


def test_what_is_no_place_for_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the user of the tests may be one who can write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "sealed")
    write(tmp_path / "sealed")
    file = tmp_path / "file"
    file.write_text("x")
    for given, remedy in {
        str(file): "is a file",
        f"{file}/below": f"{file} is a file",
        "": "is empty",
        "~nobody_of_this_name/x": "home of a user",
        f"{tmp_path}/sealed/new/folder": f"{tmp_path}/sealed cannot be written to",
    }.items():
        with pytest.raises(UserError, match=remedy) as caught:
            real_folder(given, key="longshort.output_dir")
        assert caught.value.key == "longshort.output_dir"
        assert "\n" not in str(caught.value)


def refuse_folders(monkeypatch: pytest.MonkeyPatch, number: int, *, only: Callable[[Path], bool]) -> None:
    rename = os.replace

    def refusing(source: Path, target: Path) -> None:
        if only(Path(source)) and Path(source).is_dir():
            raise OSError(number, os.strerror(number))
        rename(source, target)

    monkeypatch.setattr(os, "replace", refusing)


@pytest.mark.parametrize("there", [True, False])
def test_a_mount_point_is_filled_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    target = write(tmp_path / "volume", **({"config": "old", "vocab": "old"} if there else {}))
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == target)
    refuse_folders(monkeypatch, errno.EBUSY, only=lambda path: path == target)
    assert work_folder(target) == target / ".partial"
    (target / "lost+found").mkdir()
    lock_file(target).write_text("locked")
    for _ in range(2):
        replace(target)
        assert {path.name: path.read_text() for path in contents(target)} == NEW
        assert lock_file(target).parent == target
        assert lock_file(target).read_text() == "locked"


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EACCES])
def test_a_folder_that_cannot_be_renamed_is_filled_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    target = write(tmp_path / "layer", config="old", vocab="old")
    refuse_folders(monkeypatch, number, only=lambda path: path == target)
    replace(target)
    assert read(target) == NEW


def test_another_file_system_is_copied_to_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    target, source = write(tmp_path / "out", config="old"), make_new(tmp_path / "out")
    moved = other / f"longshort-{os.getpid()}"
    shutil.move(source, moved)
    refuse_folders(monkeypatch, errno.EXDEV, only=lambda path: path == target)
    try:
        replace_folder(moved, target)
        assert read(target) == NEW
    finally:
        shutil.rmtree(moved, ignore_errors=True)


def test_another_error_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write(tmp_path / "out", config="old")
    source = make_new(target)
    refuse_folders(monkeypatch, errno.ENOSPC, only=lambda path: path == source)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        replace_folder(source, target)
    assert read(target) == {"config": "old"}


FULL = {
    "system": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "safetensors": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    "torch": RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed: file write failed"),
}


@pytest.mark.parametrize("error", FULL.values(), ids=FULL.keys())
def test_a_full_disk_is_told_in_one_line(tmp_path: Path, error: Exception) -> None:
    target = write(tmp_path / "out", config="old")
    said = r"cannot be written in .*; the older model in .*out is as it was"
    with pytest.raises(RunDiedError, match=said) as caught, writing(work_folder(target), target):
        raise error
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="another"), writing(work_folder(target), target):
        raise ValueError("another")


class KilledError(BaseException):
    """A kill: nothing of the code under test catches it."""


@pytest.mark.parametrize("within", [False, True])
def test_a_kill_at_any_rename_leaves_a_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: bool
) -> None:
    old = {"config": "old", "vocab": "old", "weights": "old"}
    rename, seen = os.replace, []
    for kill_at in range(1, 20):
        target = write(tmp_path / f"out{kill_at}", **old)
        if within:
            monkeypatch.setattr(os.path, "ismount", lambda path, mount=target: Path(path) == mount)
        source, calls = make_new(target), 0

        def counted(a: Path, b: Path, last: int = kill_at) -> None:
            nonlocal calls
            calls += 1
            if calls == last:
                raise KilledError
            rename(a, b)

        monkeypatch.setattr(folders.os, "replace", counted)
        try:
            replace_folder(source, target)
        except KilledError:
            monkeypatch.setattr(folders.os, "replace", rename)
            restore(target)
            restore(target)
            found = read_files(target)
            assert found in (old, NEW)
            seen.append(found == NEW)
            # and the next run ends well
            replace(target)
            assert read_files(target) == NEW
        else:
            monkeypatch.setattr(folders.os, "replace", rename)
            assert read_files(target) == NEW
            break
    assert len(seen) >= 2


def read_files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.is_file()}
