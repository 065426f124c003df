"""Watches the processes of a run from its command, and ends a run of which one is lost.

The task runner learns of another process's death only when it calls it: an agent loop or a queue that is gone leaves it
waiting. Nobody learns of a process that is stopped, and a command whose Ray head is gone waits for a minute and is then
ended without a word. So the command itself looks at Ray's table of actors, at the state of the processes on its own
node, at its Ray head, and at how long the run has been doing the same thing (`activity`).
"""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from verl_longshort.base.console import Once
from verl_longshort.verl_plugin.run import activity

PERIOD_S = 1.0
STOPPED_S = 15.0
"""How long a process may be stopped: somebody may look at it with a debugger."""

GRACE_S = 5.0
"""How long a run may take to end by itself after it lost a process, and then again after it was told to."""

HEAD = ("gcs_server", "raylet")
_KINDS = {
    "TaskRunnerV1": "the task runner",
    "AgentLoopWorkerTQ": "an agent-loop worker",
    "TransferQueueController": "the controller of TransferQueue",
    "SimpleStorageUnit": "a storage unit of TransferQueue",
}
_UNTIMED = (activity.GENERATING, activity.VALIDATING, activity.STARTING)
"""What may take any time; while trajectories run, `rollout_timeout_s` counts."""

logger = logging.getLogger(__name__)
# a look that fails fails every second
logger.addFilter(Once())


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What a run lost: a process, or the hope that it goes on."""

    what: str
    """As the beginning of a sentence: "the task runner (process 123) died"."""
    how: str
    here: bool = True
    """On the command's own node. Elsewhere it may have been the first of its node."""


class ProcessWatch:
    """Watches the actors of this job, on its own cluster the Ray head too.

    Args:
        root: the run's folder.
        own_cluster: Ray's head belongs to this command.
        phase_timeout_s: how long the run may do the same thing.
        end_run: ends the task runner. When that does not end the run, the main thread is interrupted.
    """

    def __init__(self, root: Path, *, own_cluster: bool, phase_timeout_s: float, end_run: Callable[[], None]) -> None:
        self._root = root
        self._own_cluster = own_cluster
        self._phase_timeout_s = phase_timeout_s
        self._end_run = end_run
        self._lost: Lost | None = None
        self._found = threading.Event()
        self._ended = threading.Event()
        self._processes: dict[str, psutil.Process] = {}
        self._heads: dict[str, psutil.Process] = {}
        self._children: set[psutil.Process] = set()
        self._stopped_since: dict[int, float] = {}
        self._activity: tuple[activity.Activity | None, float] = (None, time.monotonic())

    def start(self) -> None:
        """Begin; Ray must be connected."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._interrupt)
        looks = [self._look_at_actors, self._look_at_activity, *([self._look_at_head] if self._own_cluster else [])]
        for look in looks:
            threading.Thread(target=self._watch, args=(look,), name=f"watch{look.__name__}", daemon=True).start()

    def stop(self) -> None:
        """The run is over: leave it alone."""
        self._ended.set()

    def lost(self, wait_s: float = 0.0) -> Lost | None:
        """What the run lost first; waits up to `wait_s` seconds for it."""
        self._found.wait(wait_s)
        return self._lost

    def lost_here(self) -> bool:
        """Whether what was lost was on the command's own node."""
        return self._lost is not None and self._lost.here

    def end_processes(self) -> None:
        """Kill what is left of a run that lost a process: one that is stopped would stay."""
        if self._own_cluster:
            self._look_at_children()
        for process in {*self._processes.values(), *self._heads.values(), *self._children}:
            try:
                process.kill()
            except psutil.Error:
                continue

    def _watch(self, look: Callable[[], Lost | None]) -> None:
        while not self._ended.wait(PERIOD_S):
            try:
                lost = look()
            except Exception as error:
                logger.warning("%s failed: %s", look.__name__, error)
                continue
            if lost is not None and not self._found.is_set():
                self._lost = lost
                self._found.set()
                self._end()
                return

    def _end(self) -> None:
        if self._ended.wait(GRACE_S):
            return
        ending = threading.Thread(target=self._end_run, daemon=True)
        ending.start()
        # a head that is gone ends nothing, and a process that is stopped does not end
        if not self._ended.wait(GRACE_S):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._lost is not None and not self._ended.is_set():
            self._ended.set()
            # while it waits, Ray lets no other exception of a handler through
            raise KeyboardInterrupt

    # ---- what is looked at -------------------------------------------------------------------------

    def _look_at_actors(self) -> Lost | None:
        import ray

        context = ray.get_runtime_context()
        job, node = context.get_job_id(), context.get_node_id()
        table: dict[str, dict[str, Any]] = ray._private.state.actors()
        actors = {identity: actor for identity, actor in table.items() if actor["JobID"] == job}
        dead = [actor for actor in actors.values() if actor["State"] == "DEAD" and how_it_died(actor) is not None]
        if dead:
            first = min(dead, key=lambda actor: actor["EndTime"])
            here = first["Address"]["NodeID"] == node
            return Lost(what=f"{self._named(first)} died", how=how_it_died(first) or "", here=here)
        for identity, actor in actors.items():
            if actor["State"] == "ALIVE" and actor["Address"]["NodeID"] == node and identity not in self._processes:
                self._processes[identity] = psutil.Process(actor["Pid"])
        for identity, process in self._processes.items():
            if identity in actors and self._stopped_long(process):
                how = f"it has been stopped (SIGSTOP) for {STOPPED_S:g} s"
                return Lost(what=f"{self._named(actors[identity])} stands still", how=how)
        return None

    def _look_at_children(self) -> None:
        # an actor that has just started is in no table yet, and outlives a head that is killed
        for process in self._head().values():
            with contextlib.suppress(psutil.NoSuchProcess):
                # not in place: the command may go through them while the watch looks
                self._children = self._children.union(process.children(recursive=True))

    def _look_at_head(self) -> Lost | None:
        self._look_at_children()
        for kind, process in self._head().items():
            what = f"Ray's head ({kind}, process {process.pid})"
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return Lost(what=f"{what} died", how="it was killed, or ended with an error")
            if self._stopped_long(process):
                return Lost(what=f"{what} stands still", how=f"it has been stopped (SIGSTOP) for {STOPPED_S:g} s")
        return None

    def _look_at_activity(self) -> Lost | None:
        known, since = self._activity
        now = activity.read(self._root)
        if now != known:
            self._activity = (now, time.monotonic())
        elif now is not None and now.doing not in _UNTIMED and time.monotonic() - since > self._phase_timeout_s:
            how = f"the same for longshort.phase_timeout_s = {self._phase_timeout_s:g} s; raise it if that is normal"
            return Lost(what="the run stands still", how=how)
        return None

    def _head(self) -> dict[str, psutil.Process]:
        import ray

        started = ray._private.worker._global_node.all_processes
        for kind in HEAD:
            if kind not in self._heads and started.get(kind):
                self._heads[kind] = psutil.Process(started[kind][0].process.pid)
        return self._heads

    def _stopped_long(self, process: psutil.Process) -> bool:
        try:
            stopped = process.status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            stopped = False
        if not stopped:
            self._stopped_since.pop(process.pid, None)
            return False
        return time.monotonic() - self._stopped_since.setdefault(process.pid, time.monotonic()) > STOPPED_S

    def _named(self, actor: Mapping[str, Any]) -> str:
        doing = activity.read(self._root)
        return actor_name(actor, doing.workers if doing else {})


def how_it_died(actor: Mapping[str, Any]) -> str | None:
    """Why an actor of Ray's table died; None when it was ended on purpose, or along with its owner or its node."""
    cause = actor["DeathCause"]
    if cause.HasField("oom_context"):
        return " ".join(str(cause.oom_context.error_message).split())
    if not cause.HasField("actor_died_error_context"):
        return None
    context = cause.actor_died_error_context
    reason = type(context).Reason.Name(context.reason)
    # behind it Ray guesses at causes
    known = context.error_message.partition("Some common causes")[0]
    return " ".join(known.split()) if reason == "WORKER_DIED" else None


def actor_name(actor: Mapping[str, Any], workers: Mapping[str, str]) -> str:
    """An actor of Ray's table as people know it; `workers`: actor id -> what it is."""
    name, kind = actor["Name"], actor["ActorClassName"].rsplit(".", 1)[-1]
    if actor["ActorID"] in workers:
        known = workers[actor["ActorID"]]
    elif "_server_" in name:
        known = f"the rollout server {name}"
    else:
        known = _KINDS.get(kind, f"{kind} {name}".strip())
    return f"{known} (process {actor['Pid']})"
