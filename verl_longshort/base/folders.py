"""A folder that a command writes as a whole: it appears when it is complete, and an older one is never lost.

The command works in `work_folder(target)` and ends with `replace_folder`. `target` is what `real_folder` returned:
absolute, so that `x/`, `x/../x`, `~/x` and a link to it are one folder.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longshort_reward.errors import UserError

from verl_longshort.base.errors import RunDiedError

_NEW = ".partial"
_MOVING, _OLD, _DONE = ".moving", ".old", ".replaced"
"""Within a folder whose files are replaced one by one: the old ones while they are moved (nothing new is there yet),
all of the old ones (what is beside them is new), and the old ones when all of the new ones are in place."""
_UNWRITTEN = ("os error", "iostream error", "file write failed", "No space left")
"""What errors of safetensors and torch say that failed to write a file."""
_NOT_RENAMED = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM)


def real_folder(path: str | Path, *, key: str) -> Path:
    """The folder that `path` means, which need not exist; `~` and links are followed.

    Raises UserError for a file, and for a place where this user cannot write.
    """
    if not str(path):
        raise UserError(key, path, "is empty: give a folder")
    try:
        folder = Path(os.path.realpath(Path(path).expanduser()))
    except RuntimeError as error:
        raise UserError(key, path, "names the home of a user who does not exist: give the whole path") from error
    nearest = folder
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        what = "is" if nearest == folder else f"{nearest} is"
        raise UserError(key, path, f"{what} a file: give a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(key, path, f"{nearest} cannot be written to: give a folder elsewhere")
    return folder


def work_folder(target: Path) -> Path:
    """Where the new content of `target` is made: next to it; in it, when it is a mount point or its parent cannot be
    written to.
    """
    inside = target.is_dir() and (os.path.ismount(target) or not os.access(target.parent, os.W_OK | os.X_OK))
    return target / _NEW if inside else target.with_name(f"{target.name}{_NEW}")


def lock_file(target: Path) -> Path:
    """What a command that works on `target` locks; beside its `work_folder`."""
    work = work_folder(target)
    return work.with_name(f".{work.name}.lock")


def contents(target: Path) -> list[Path]:
    """What lies in `target`, without what a run and a replacement keep there in between."""
    own = (_NEW, _MOVING, _OLD, _DONE, lock_file(target).name, "lost+found")
    return sorted(path for path in target.iterdir() if path.name not in own) if target.is_dir() else []


@contextmanager
def writing(work: Path, target: Path) -> Iterator[None]:
    """While the new content of `target` is written in `work`: a full or broken disk ends the command in one line.

    Raises RunDiedError for it. Libraries tell of it by errors of their own, hence by what their texts say.
    """
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        if not isinstance(error, OSError) and not any(sign in text for sign in _UNWRITTEN):
            raise
        older = f"; the older model in {target} is as it was" if contents(target) else ""
        raise RunDiedError(
            f"the result cannot be written in {work} ({text}){older}: make room, and start again"
        ) from error


def replace_folder(source: Path, target: Path) -> None:
    """Make `source` the folder `target`; an older `target` is there until the new one is, but for two renames.

    Where the folder itself cannot be renamed (a mount point, a layer of a container), its files are, one by one.
    `restore` mends what a kill in between leaves.
    """
    restore(target)
    if target not in source.parents:
        aside = _aside(target)
        try:
            if target.exists():
                os.replace(target, aside)
            os.replace(source, target)
        except OSError as error:
            restore(target)
            if error.errno not in _NOT_RENAMED:
                raise
        else:
            shutil.rmtree(aside, ignore_errors=True)
            return
    _replace_contents(source, target)


def restore(target: Path) -> None:
    """Bring back the older content of `target` if `replace_folder` did not get to its end."""
    aside = _aside(target)
    if aside.is_dir():
        if target.exists():
            shutil.rmtree(aside)
        else:
            os.replace(aside, target)
    old, moving = target / _OLD, target / _MOVING
    if old.is_dir():
        for path in contents(target):
            _remove(path)
        os.replace(old, moving)
    if moving.is_dir():
        for path in sorted(moving.iterdir()):
            os.replace(path, target / path.name)
        moving.rmdir()
    shutil.rmtree(target / _DONE, ignore_errors=True)


def _replace_contents(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    if source.stat().st_dev != target.stat().st_dev:
        # copied before anything old is touched: the disk may be full
        near = target / _NEW
        shutil.rmtree(near, ignore_errors=True)
        source = Path(shutil.copytree(source, near))
    (target / _MOVING).mkdir()
    for path in contents(target):
        os.replace(path, target / _MOVING / path.name)
    os.replace(target / _MOVING, target / _OLD)
    for path in sorted(source.iterdir()):
        os.replace(path, target / path.name)
    os.replace(target / _OLD, target / _DONE)
    shutil.rmtree(target / _DONE)
    shutil.rmtree(target / _NEW, ignore_errors=True)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}{_DONE}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
