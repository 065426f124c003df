"""Runs verl's task runner on a cluster whose nodes may die.

A node's death reaches a run in many ways: as an error of Ray, as a connection that broke, or not at all: a
dead node does not answer. So the command itself watches the nodes, and ends a run that does not end by itself.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from verl_longshort.verl_plugin.trainer.cluster import node_name
from verl_longshort.verl_plugin.trainer.failure import LostNode

PERIOD_S = 2.0
GRACE_S = 60.0
"""How long a run may take to end by itself after one of its nodes died."""

NOTICE_S = 45.0
"""How long to wait, after an error, for Ray to notice a node's death: its health checks take some seconds."""

logger = logging.getLogger(__name__)


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
            if node["Alive"]:
                self._names[node["NodeID"]] = node_name(node)
            elif node["NodeID"] in self._used and node["NodeID"] not in self._lost:
                reason = " ".join(node.get("DeathReasonMessage", "").split())
                self._lost[node["NodeID"]] = LostNode(
                    id=node["NodeID"], name=self._names[node["NodeID"]], reason=reason
                )
                self._died.set()


def _nodes_of_this_job() -> set[str]:
    import ray

    # the public list of actors needs Ray's dashboard, which many clusters run without
    actors: dict[str, dict[str, Any]] = ray._private.state.actors()
    job = ray.get_runtime_context().get_job_id()
    return {actor["Address"]["NodeID"] for actor in actors.values() if actor["JobID"] == job}
