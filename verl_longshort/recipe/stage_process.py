"""One stage as a process with its files on disk, and how all its processes are found and ended.

A stage's processes inherit a mark in their environment, also those that Ray has detached from it. It is found again
when the stage's first process has died, and by a later launcher when the one that started the stage was killed.

Below the recipe's output folder: `stages/<name>.json` is the marker, `stages/<name>.commands` says how many of
several commands are done, `logs/<name>.log` holds the output of all attempts, `progress/<name>.json` the last report.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import psutil
from longshort_reward.compat import StrEnum

from verl_longshort.base.progress import VARIABLE, Pace, Progress, read
from verl_longshort.base.run_record import DONE, RUNNING, Marker, read_marker, write_marker
from verl_longshort.recipe.recipe import RecipeStage, as_text
from verl_longshort.recipe.sequence import NOTE_VARIABLE, OUTPUTS_VARIABLE

MARK_VARIABLE = "LONGSHORT_STAGE"
GRACE_SECONDS = 10.0
"""How long processes may take to end by themselves before they are killed."""


class Status(StrEnum):
    """Where a stage is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class StageProcess:
    """One stage during one run of the launcher."""

    def __init__(self, stage: RecipeStage, *, fingerprint: str, output: Path, environment: Mapping[str, str]) -> None:
        self.stage = stage
        self.log = output / "logs" / f"{stage.name}.log"
        self.failure = ""
        self._fingerprint = fingerprint
        self._environment = environment
        self._mark = uuid.uuid4().hex
        self._marker_file = output / "stages" / f"{stage.name}.json"
        self._commands_file = output / "stages" / f"{stage.name}.commands"
        self._progress_file = output / "progress" / f"{stage.name}.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._last_sign = 0.0
        self._last_seen: tuple[float, ...] = ()
        self._pace = Pace()
        marker = read_marker(self._marker_file)
        same = marker is not None and marker.fingerprint == fingerprint and marker.status == DONE
        self.done_before = same and self._missing_output() is None
        self.status = Status.DONE if self.done_before else Status.WAITING
        self.seconds = marker.seconds if marker is not None and self.done_before else 0.0

    @property
    def progress(self) -> Progress | None:
        """The last report of this attempt."""
        return read(self._progress_file) if self.status is Status.RUNNING else None

    @property
    def fraction(self) -> float | None:
        """Share of the work done, None before the stage reports it."""
        if self.status is Status.DONE:
            return 1.0
        progress = self.progress
        return progress.fraction if progress else None

    @property
    def seconds_left(self) -> float | None:
        """Time left at the pace since the first report (starting up is no work), None before a second one."""
        return self._pace.seconds_left(self.seconds, self.fraction)

    def start(self) -> None:
        """Start the process in its own session, after removing what another command left as outputs."""
        self._clear()
        for file in (self.log, self._marker_file, self._progress_file):
            file.parent.mkdir(parents=True, exist_ok=True)
        self._progress_file.unlink(missing_ok=True)
        self._write_marker(RUNNING)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n=== {time.strftime('%Y-%m-%d %H:%M:%S')} {as_text(self.stage.command)}\n")
            log.flush()
            own = {
                VARIABLE: str(self._progress_file.resolve()),
                MARK_VARIABLE: self._mark,
                NOTE_VARIABLE: str(self._commands_file.resolve()),
                OUTPUTS_VARIABLE: json.dumps([str(path) for path in self.stage.outputs]),
            }
            self._process = subprocess.Popen(
                self.stage.command,
                env={**stage_environment(self._environment), **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started = self._last_sign = time.monotonic()
        self.status = Status.RUNNING

    def poll(self, stall_seconds: float) -> Status:
        """Look at the process; end it when it has given no sign of life for `stall_seconds`."""
        if self.status is not Status.RUNNING or self._process is None:
            return self.status
        code = self._process.poll()
        self.seconds = time.monotonic() - self._started
        # Looked at each time, so that the pace counts from the first report on.
        self._pace.seconds_left(self.seconds, self.fraction)
        if code is not None:
            self._conclude(code)
        elif self._silent_seconds() > stall_seconds:
            self.end(f"no output and no progress for {stall_seconds / 60:g} minutes")
        return self.status

    def end(self, reason: str) -> None:
        """End all its processes; the stage has failed for `reason`."""
        if self._process is not None and self.status is Status.RUNNING:
            end_marked(self._mark)
            self._process.wait(timeout=GRACE_SECONDS)
            self._fail(reason)

    def log_tail(self, lines: int) -> str:
        """The last lines of the log."""
        with self.log.open(encoding="utf-8", errors="replace") as log:
            return "".join(deque(log, maxlen=lines)).rstrip()

    def _conclude(self, code: int) -> None:
        # What the process started may outlive it and hold memory or ports.
        end_marked(self._mark)
        missing = self._missing_output()
        if code != 0:
            self._fail(f"exit status {code}")
        elif missing is not None:
            self._fail(f"it ended well but did not write {missing}")
        else:
            self.status = Status.DONE
            self._write_marker(DONE)

    def _fail(self, reason: str) -> None:
        self.status, self.failure = Status.FAILED, reason

    def _silent_seconds(self) -> float:
        seen = tuple(f.stat().st_mtime for f in (self.log, self._progress_file) if f.exists())
        if seen != self._last_seen:
            self._last_seen, self._last_sign = seen, time.monotonic()
        return time.monotonic() - self._last_sign

    def _missing_output(self) -> Path | None:
        return next((path for path in self.stage.outputs if not path.exists()), None)

    def _clear(self) -> None:
        marker = read_marker(self._marker_file)
        if marker is None or (marker.fingerprint, marker.status) != (self._fingerprint, RUNNING):
            self._commands_file.unlink(missing_ok=True)
        if marker is None:
            return
        if marker.status == RUNNING:
            end_marked(marker.mark)
        if marker.fingerprint != self._fingerprint:
            for path in self.stage.outputs:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def _write_marker(self, status: str) -> None:
        marker = Marker(fingerprint=self._fingerprint, status=status, mark=self._mark, seconds=self.seconds)
        write_marker(self._marker_file, marker)


def stage_environment(given: Mapping[str, str]) -> dict[str, str]:
    """The variables of a stage's process: this process's, and `given` by the recipe."""
    # The launcher's own environment comes first, so that `python` and `longshort` are its own.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **given}


def end_marked(mark: str) -> None:
    """End every process that carries `mark`, and all its descendants."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # Looked up each time: a process may have started another one meanwhile.
        processes = _marked(mark)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        psutil.wait_procs(processes, timeout=GRACE_SECONDS)


def _marked(mark: str) -> set[psutil.Process]:
    """The running processes that carry `mark` in their environment, and their descendants.

    Descendants, because a process that renames itself, as Ray's workers do, may overwrite its environment.
    """
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(MARK_VARIABLE) == mark:
                found |= {process, *process.children(recursive=True)}
    return found
