"""Watches the nodes of the cluster that a run is on, and says what died.

A node's death reaches a run in many ways: as an error of Ray, as a connection that broke, or not at all: a
dead node does not answer. So the command itself watches the nodes, and ends a run that does not end by itself. The
report on it says what died, what the run was doing, and how to resume.
"""

import logging
import os
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_longshort.base.checkpoint import TRACKER
from verl_longshort.base.errors import RunDiedError
from verl_longshort.verl_plugin.run import activity
from verl_longshort.verl_plugin.run.cluster import VARIABLE, node_name

PERIOD_S = 2.0
GRACE_S = 60.0
"""How long a run may take to end by itself after one of its nodes died."""

NOTICE_S = 45.0
"""How long to wait, after an error, for Ray to notice a node's death: its health checks take some seconds."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LostNode:
    """A node that died: Ray's id, a readable name, and the reason that Ray gives."""

    id: str
    name: str
    reason: str


class NodeWatch:
    """Watches the nodes that hold actors of this job; after a death, ends the task runner in `GRACE_S`."""

    def __init__(self, end_run: Callable[[], None]) -> None:
        self._end_run = end_run
        self._names: dict[str, str] = {}
        self._used: set[str] = set()
        self._lost: dict[str, LostNode] = {}
        self._ended = threading.Event()
        self._died = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="node-watch", daemon=True)

    def start(self) -> None:
        """Begin; Ray must be connected."""
        self._thread.start()

    def stop(self) -> None:
        """The run is over: leave it alone."""
        self._ended.set()

    def lost(self, wait_s: float = 0.0) -> list[LostNode]:
        """The nodes that died under the run; waits up to `wait_s` seconds for the first."""
        self._died.wait(wait_s)
        return list(self._lost.values())

    def _watch(self) -> None:
        died_at: float | None = None
        while not self._ended.wait(PERIOD_S):
            try:
                self._look()
            except Exception as error:
                # Ray itself ends a process whose cluster stays away for a minute
                logger.warning("the Ray cluster did not say how its nodes are: %s", error)
            if self._lost and died_at is None:
                died_at = time.monotonic()
                names = ", ".join(node.name for node in self._lost.values())
                logger.error("node %s died; the run ends within %.0f s", names, GRACE_S)
            if died_at is not None and time.monotonic() - died_at > GRACE_S:
                self._end_run()
                return

    def _look(self) -> None:
        import ray

        nodes = ray.nodes()
        # what runs on a node is known only while it lives, so it is recorded before a death
        self._used |= {node for node in _nodes_of_this_job() if node in self._names}
        for node in nodes:
            identity = node["NodeID"]
            if node["Alive"]:
                self._names[identity] = node_name(node)
            elif identity in self._used and identity not in self._lost:
                reason = " ".join(node.get("DeathReasonMessage", "").split())
                self._lost[identity] = LostNode(id=identity, name=self._names[identity], reason=reason)
                self._died.set()


def _nodes_of_this_job() -> set[str]:
    import ray

    # the public list of actors needs Ray's dashboard, which many clusters run without
    actors: dict[str, dict[str, Any]] = ray._private.state.actors()
    job = ray.get_runtime_context().get_job_id()
    return {actor["Address"]["NodeID"] for actor in actors.values() if actor["JobID"] == job}


def node_failure(nodes: Sequence[LostNode], root: Path, command: Sequence[str], address: str) -> RunDiedError:
    """The error for a run in the folder `root` under which `nodes` died."""
    doing = activity.read(root)
    held = [part for node in nodes for part in (doing.on_node(node.id) if doing else [])]
    lines = {
        "on it": ", ".join(held) or "no worker rank; other processes of the run",
        "Ray says": "; ".join(dict.fromkeys(node.reason for node in nodes if node.reason)) or "nothing about why",
    }
    names = ", ".join(node.name for node in nodes)
    remedy = f"`ray start --address={address}` on that node or one in its place, then again:"
    return _failure(f"node {names} of the Ray cluster died", lines, remedy, root, command)


def process_failure(
    error: object, root: Path, command: Sequence[str], what: str = "a process of the run died"
) -> RunDiedError:
    """The error for a run of which a process died and its node did not; `error` says how."""
    lines = {"Ray says": " ".join(str(error).split())}
    remedy = "if it was killed for its memory, lower micro batches or max_num_seqs; then again:"
    return _failure(what, lines, remedy, root, command)


def stalled(error: Exception, root: Path, command: Sequence[str]) -> RunDiedError:
    """The error for a run that stopped itself because nothing went on."""
    return _failure(f"the run stopped: {error}", {}, "the same command goes on from there:", root, command)


def _failure(what: str, lines: dict[str, str], remedy: str, root: Path, command: Sequence[str]) -> RunDiedError:
    tracker = root / TRACKER
    doing, step = activity.read(root), tracker.read_text().strip() if tracker.exists() else ""
    when = f"in step {doing.step} of {doing.total}: {doing.doing}" if doing else "before a step had begun"
    last = f"none in {root}; the run begins anew" if not step else f"step {step} in {root}"
    lines = {**lines, "last checkpoint": last, "to resume": remedy}
    width = max(map(len, lines)) + 1
    body = [f"  {name + ':':<{width}} {text}" for name, text in lines.items()]
    address = os.environ.get(VARIABLE) if command else None
    variable = f"{VARIABLE}={shlex.quote(address)} " if address else ""
    again = variable + shlex.join(command) if command else "the same command"
    return RunDiedError("\n".join([f"{what} {when}", *body, f"    {again}"]))
