"""Finds and ends the processes of a stage, also those that Ray has detached from it.

A stage's processes inherit a mark in their environment. It is found again when the stage's first process has
died, and by a later launcher when the one that started the stage was killed.
"""

import contextlib
import signal

import psutil

MARK_VARIABLE = "LONGSHORT_STAGE"
GRACE_SECONDS = 10.0
"""How long processes may take to end by themselves before they are killed."""


def end_marked(mark: str) -> None:
    """End every process that carries `mark`, and all its descendants."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # Looked up each time: a process may have started another one meanwhile.
        processes = marked(mark)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        psutil.wait_procs(processes, timeout=GRACE_SECONDS)


def marked(mark: str) -> set[psutil.Process]:
    """The running processes that carry `mark` in their environment, and their descendants.

    Descendants, because a process that renames itself, as Ray's workers do, may overwrite its environment.
    """
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(MARK_VARIABLE) == mark:
                found |= {process, *process.children(recursive=True)}
    return found
