"""Ends a stage's processes, Ray's included, and recognises one that an earlier launcher left behind."""

import contextlib
import os
import signal

import psutil

GRACE_SECONDS = 10.0
"""How long processes may take to end by themselves before they are killed."""


def created_at(pid: int) -> float:
    """When process `pid` was started, as the system counts it; 0.0 when it has ended already."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def end_process(pid: int) -> None:
    """End the session leader `pid`, its group and all its descendants (Ray's have groups of their own)."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    signal_group(pid, signal.SIGTERM)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=GRACE_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=GRACE_SECONDS)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send `number` to what is left of the process group that `pid` leads or led."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
