"""What to tell a user whose files cannot be written: a full disk, a quota, a folder that is read-only."""

import errno
import shutil
from contextlib import suppress
from pathlib import Path

from longshort_reward.errors import UserError
from ray.exceptions import RayActorError

from verl_longshort.base.checkpoint import CheckpointStore
from verl_longshort.base.errors import RunDiedError, UnwrittenError
from verl_longshort.verl_plugin.rollout.failures import root_cause

_FILES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.EFBIG)
_FULL = 1 << 26
"""Free bytes below which a failure to write is put down to a full disk: torch's own errors do not say."""


def explain_unsaved(error: Exception, store: CheckpointStore, step: int) -> Exception:
    """The error for a checkpoint that could not be saved, of which nothing is left behind.

    The death of a process, and what explains itself, is handed back as it is.
    """
    cause = root_cause(error)
    if isinstance(cause, (RayActorError, UserError, RunDiedError)):
        return error
    with suppress(OSError):
        store.discard(step)
    return UnwrittenError(f"the checkpoint of step {step} cannot be saved: {_reason(cause, store.root)}")


def explain_unwritten(cause: BaseException, root: Path) -> UnwrittenError | None:
    """The error for a run in `root` that failed on a file elsewhere than in saving; None for other failures."""
    if isinstance(cause, OSError) and cause.errno in _FILES:
        return UnwrittenError(f"a file of the run cannot be written: {_reason(cause, root)}")
    return None


def _reason(cause: BaseException, root: Path) -> str:
    file = getattr(cause, "filename", None) or root
    text = getattr(cause, "strerror", None) or next(iter(str(cause).splitlines()), "") or type(cause).__name__
    free = shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free
    full = "the disk is full; " if free < _FULL and "No space" not in text else ""
    try:
        step = CheckpointStore(root).latest()
        last = "there is no checkpoint yet" if step is None else f"the last usable checkpoint is that of step {step}"
    except UserError as none:
        last = str(none)
    return f"{file}: {full}{text}; {last}; make room or the folder writable, and the same command goes on from there"
