"""One process at a time works in a folder; a second one is refused at once and told who is there."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from longshort_reward.errors import UserError

logger = logging.getLogger(__name__)
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True, kw_only=True)
class Lock:
    """`file` is made where it is not there and stays; `key` is the setting that names the folder, `value` its value."""

    file: Path
    key: str
    value: object
    holder: str
    """Who may hold it, such as "another run"."""


@contextmanager
def held(lock: Lock) -> Iterator[None]:
    """Hold a lock while the body runs; the system gives it back when the process ends, however that is.

    Raises:
        UserError: another process holds it, or the file cannot be written.
    """
    try:
        lock.file.parent.mkdir(parents=True, exist_ok=True)
        file = lock.file.open("a+", encoding="utf-8")
    except OSError as error:
        remedy = f"cannot be written to ({error.strerror}): give another folder, or make it writable"
        raise UserError(lock.key, lock.value, remedy) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip()
            remedy = f"{lock.holder} is running there{who and f' ({who})'}; wait for it or stop it"
            raise UserError(lock.key, lock.value, remedy) from None
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            logger.warning(
                "%s lies on a file system without locks: see to it that no second run writes there", lock.file
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
