"""Where a run's metrics are: one file per start of the run, so that a resumed run erases nothing. No verl."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from verl_longshort.base.console import SaidLines

VARIABLE = "VERL_FILE_LOGGER_PATH"
POLL_S = 1.0


def metrics_files(folder: Path) -> list[Path]:
    """The files in which verl's file logger wrote a run's metrics, one per start of the run, oldest first."""
    return sorted(folder.glob("metrics.*.jsonl"), key=lambda path: int(path.name.split(".")[1]))


@contextmanager
def metrics_file(folder: Path) -> Iterator[Path]:
    """Make `folder` and let verl's file logger, which truncates its file, write the next one there.

    A file that the user has named for the logger gets the same lines, each within `POLL_S` seconds, after those that it
    has already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / f"metrics.{len(metrics_files(folder))}.jsonl"
    given = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(own)
    ended = threading.Event()
    thread = threading.Thread(target=_copy, args=(own, Path(given or own), ended), name="metrics", daemon=True)
    if given is not None:
        thread.start()
    try:
        yield own
    finally:
        ended.set()
        if given is None:
            del os.environ[VARIABLE]
        else:
            thread.join()
            os.environ[VARIABLE] = given


def _copy(own: Path, given: Path, ended: threading.Event) -> None:
    given.parent.mkdir(parents=True, exist_ok=True)
    lines, is_last = SaidLines(own), False
    while not is_last:
        is_last = ended.wait(POLL_S)
        if own.exists() and (new := lines.new()):
            with given.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in new)
