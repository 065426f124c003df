"""Starts, asks and replaces the grader processes (`grader_process`), from any thread of any process.

Plain subprocesses and not a pool from `multiprocessing` or a library on top of it: those cannot start in a
daemon process and import the caller's main module (verl and Ray, in a worker) again in every child.
"""

import atexit
import json
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from longshort_reward.compat import StrEnum
from longshort_reward.limits import WALL_FACTOR

logger = logging.getLogger(__name__)
_START_LIMIT_S = 120.0
_GRACE_S = 2.0
_QUEUE_LIMIT_S = 600.0
ATTEMPTS = 3
"""How often a question is asked whose grader was killed, or could not be started, before it was answered."""


class Verdict(StrEnum):
    """What came out of comparing two answers; only MATCH counts as correct."""

    MATCH = "match"
    DIFFERENT = "different"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"


class GraderKilledError(RuntimeError):
    """The grader was ended from outside: nothing is known about the answer."""


class Grader:
    """One running grader process. Not thread-safe: one caller at a time."""

    def __init__(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            RuntimeError: it did not come up; its own error is on stderr.
        """
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "longshort_reward.grader_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        )
        if (said := self._read_line(_START_LIMIT_S)) != b"ready\n":
            if said is not None:
                self._check_killed()
            self.close()
            raise RuntimeError(
                f"the answer grader did not start (exit status {self._process.returncode}): see its error on "
                f"stderr and try `{sys.executable} -m longshort_reward.grader_process`"
            )

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def ask(self, answer: str, gold: str, *, boxed: bool, timeout_s: float) -> Verdict:
        """Compare two answers within `timeout_s` seconds of processor time; see `grader_process.compare`.

        Unusable after a failure.

        Raises:
            GraderKilledError: another process killed it, such as the kernel where memory runs out.
        """
        request = {"answer": answer, "gold": gold, "boxed": boxed, "timeout_s": timeout_s}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            return self._crashed()
        reply = self._read_reply(timeout_s * WALL_FACTOR + _GRACE_S)
        if reply:
            return Verdict.MATCH if json.loads(reply) else Verdict.DIFFERENT
        # None: it got no processor time, as only a stopped process does.
        return Verdict.TIMED_OUT if reply is None else self._crashed()

    def close(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.communicate()

    def _crashed(self) -> Verdict:
        self._check_killed()
        return Verdict.TIMED_OUT if self._process.returncode == -signal.SIGPROF else Verdict.CRASHED

    def _check_killed(self) -> None:
        status = self._process.wait(_GRACE_S)
        # its memory is limited, so no answer gets it killed: one that needs more raises MemoryError
        if status in (-signal.SIGKILL, -signal.SIGTERM):
            raise GraderKilledError(f"the answer grader was killed ({signal.Signals(-status).name}); is memory short?")

    def _read_reply(self, patience_s: float) -> bytes | None:
        """As `_read_line`, and waits on while the process gets processor time: its own alarm limits that."""
        before = self._processor_ticks()
        while (line := self._read_line(patience_s)) is None:
            if (now := self._processor_ticks()) <= before:
                return None
            before = now
        return line

    def _processor_ticks(self) -> int:
        """Processor time of the process so far; 0 where the system does not say."""
        try:
            with open(f"/proc/{self._process.pid}/stat", encoding="utf-8") as file:
                # behind the name, which may hold anything: state is field 3, user and system time are 14 and 15
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            return 0
        return int(fields[11]) + int(fields[12])

    def _read_line(self, limit_s: float) -> bytes | None:
        """A line, b"" when the process closed its end, None when nothing came in time."""
        assert self._process.stdout is not None
        # poll and not select: a Ray worker may have more than the 1024 descriptors select can name.
        poller = select.poll()
        poller.register(self._process.stdout, select.POLLIN)
        return self._process.stdout.readline() if poller.poll(limit_s * 1000) else None


class GraderPool:
    """At most `size` graders, started when first needed and replaced after a failure. Thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.forget()

    def ask(self, answer: str, gold: str, *, boxed: bool, timeout_s: float) -> Verdict:
        """Compare two answers; waits for a free grader first, and the time limit starts after that.

        A grader that is killed is replaced and asked again; all attempts together have the time limit.

        Raises:
            RuntimeError: no grader could be started or left alive, or none came free for ten minutes.
        """
        with self._lease() as slot:
            verdict = self._answered(slot, answer, gold, boxed, timeout_s)
            if verdict in (Verdict.TIMED_OUT, Verdict.CRASHED):
                slot.clear()
            return verdict

    def _answered(self, slot: "_Slot", answer: str, gold: str, boxed: bool, timeout_s: float) -> Verdict:
        for attempt in range(1, ATTEMPTS + 1):
            asked = None
            try:
                if slot.grader is None or not slot.grader.alive:
                    slot.clear()
                    slot.grader = Grader()
                asked = time.monotonic()
                return slot.grader.ask(answer, gold, boxed=boxed, timeout_s=timeout_s)
            except GraderKilledError as error:
                slot.clear()
                if asked is not None:
                    timeout_s -= time.monotonic() - asked
                if attempt == ATTEMPTS or timeout_s <= 0:
                    raise
                logger.debug("%s; another one is asked", error)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """End all idle graders; they start again when needed."""
        for slot in list(self._slots.queue):
            slot.clear()

    def forget(self) -> None:
        """Drop all graders without ending them: after a fork they belong to the parent."""
        # Last in, first out: a started grader is used again before another one is started.
        self._slots: queue.LifoQueue[_Slot] = queue.LifoQueue()
        for _ in range(self._size):
            self._slots.put(_Slot())

    @contextmanager
    def _lease(self) -> Iterator["_Slot"]:
        try:
            slot = self._slots.get(timeout=_QUEUE_LIMIT_S)
        except queue.Empty:
            raise RuntimeError(f"no answer grader came free in {_QUEUE_LIMIT_S:g} s: lower answer_timeout_s") from None
        try:
            yield slot
        except BaseException:
            # A reply may still be on its way: it must not answer the next question.
            slot.clear()
            raise
        finally:
            self._slots.put(slot)


class _Slot:
    """A place for one grader."""

    def __init__(self) -> None:
        self.grader: Grader | None = None

    def clear(self) -> None:
        grader, self.grader = self.grader, None
        if grader is not None:
            grader.close()


GRADERS = GraderPool(size=2)
"""This process's graders. Two, so that one slow answer does not hold up the others."""

os.register_at_fork(after_in_child=GRADERS.forget)
atexit.register(GRADERS.close)
