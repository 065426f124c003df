"""SIGTERM, as a scheduler sends it before it takes the machine: a run saves what it has and ends with status 143.

The command receives the signal, and the trainer lives in a process of its own: it looks for a file in the run's folder,
before each step and while it waits for trajectories. A run that has not ended after `GRACE_S`, because a step or a
checkpoint takes longer, is ended; its last checkpoint is whole all the same.
"""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from verl_longshort.base.checkpoint import TRACKER
from verl_longshort.base.console import say
from verl_longshort.base.errors import RunStoppedError

GRACE_S = 300.0
LAST_S = 30.0
"""How long the command waits for Ray, when it has ended the run."""


class StopFile:
    """Tells the trainer of the run in `root` to end."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).absolute()
        self._file = self._root / ".stop"

    def ask(self) -> None:
        """Ask the run to end."""
        self._file.touch()

    def forget(self) -> None:
        """Take back what an earlier start was asked."""
        self._file.unlink(missing_ok=True)

    def is_asked(self) -> bool:
        """Whether the run was asked to end."""
        return self._file.exists()

    def check(self) -> None:
        """Raise RunStoppedError when the run was asked to end."""
        if self.is_asked():
            raise self.stopped()

    def stopped(self) -> RunStoppedError:
        """How far the run is, in one line."""
        tracker = self._root / TRACKER
        step = tracker.read_text(encoding="utf-8").strip() if tracker.is_file() else ""
        last = f"the same command goes on from step {step}" if step else "there is no checkpoint yet"
        return RunStoppedError(f"stopped by SIGTERM: {last} ({self._root})")


class StopOnTerm:
    """Handles SIGTERM in the command's process while a run is going on.

    Args:
        root: the run's folder.
        end_run: ends the run at once.
        grace_s: how long it may take to end by itself.
    """

    def __init__(self, root: Path, end_run: Callable[[], None], grace_s: float = GRACE_S) -> None:
        self.file = StopFile(root)
        self._end_run = end_run
        self._grace_s = grace_s
        self._is_running = False
        self._ended = threading.Event()
        self._before: Any = None
        self.is_asked = False

    def install(self, *, is_running: bool) -> None:
        """Take the signal from here on; again after Ray was started, which takes it too.

        Before the trainer is running the signal ends the command right away.
        """
        self._is_running = is_running
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGTERM, self._handle)
            self._before = before if self._before is None else self._before

    def restore(self) -> None:
        """The run is over."""
        self._ended.set()
        self.file.forget()
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            return
        self.is_asked = True
        if not self._is_running:
            raise self.file.stopped()
        self.file.ask()
        say(f"SIGTERM: the run saves what it has and ends, within {self._grace_s:.0f} s")
        threading.Thread(target=self._end_in_time, name="sigterm", daemon=True).start()

    def _end_in_time(self) -> None:
        if not self._ended.wait(self._grace_s):
            say(f"the run has not ended within {self._grace_s:.0f} s after SIGTERM and is ended")
            self._end_run()
            if not self._ended.wait(LAST_S):
                os._exit(128 + signal.SIGTERM)
