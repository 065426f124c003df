"""Sits between verl's `run_ppo` and its task runner, when Ray is connected and nothing runs yet.

There a run on an existing cluster is checked against the cluster, its task runner is put on the node of the
command, and the nodes are watched until the run ends.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from longshort_reward.errors import UserError
from omegaconf import DictConfig
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from verl_longshort.base.errors import RunDiedError, UnwrittenError
from verl_longshort.verl_plugin.rollout.failures import root_cause
from verl_longshort.verl_plugin.run import activity
from verl_longshort.verl_plugin.run.cluster import check_capacity, check_nodes, requested_address, wait_until_free
from verl_longshort.verl_plugin.run.process_watch import ProcessWatch
from verl_longshort.verl_plugin.run.stop import StopOnTerm
from verl_longshort.verl_plugin.run.unsaved import explain_unwritten
from verl_longshort.verl_plugin.run.watch import NOTICE_S, NodeWatch, node_failure, process_failure, stalled

LOOKS_S = 4.0
"""How long to wait, after an error, for the watch to see which process was lost."""

logger = logging.getLogger(__name__)


class WatchedRunner:
    """Passed to `run_ppo` as its task runner class.

    Args:
        runner_class: verl's task runner, a Ray actor class.
        config: the run's configuration.
        pools: resource pools of the run, each of trainer.nnodes x trainer.n_gpus_per_node devices.
        models: configuration key -> model, of what every node must be able to load.
        command: what the user types to start this run again.
    """

    def __init__(
        self, runner_class: Any, config: DictConfig, *, pools: int, models: Mapping[str, str], command: Sequence[str]
    ) -> None:
        self._class = runner_class
        # each must lie on one node
        self._device_groups = [config.trainer.n_gpus_per_node] * (config.trainer.nnodes * pools)
        self._models = models
        self._command = command
        self._root = Path(config.trainer.default_local_dir)
        self._joins = requested_address(config) is not None
        self._options: dict[str, Any] = {}
        self._handle: Any = None
        self.connected = False
        """Whether `run_ppo` has connected to Ray."""
        self.stop = StopOnTerm(self._root, lambda: ray.kill(self._handle))
        """Of SIGTERM."""
        self._watch = NodeWatch(lambda: ray.kill(self._handle))
        self._processes = ProcessWatch(
            self._root,
            own_cluster=not self._joins,
            phase_timeout_s=config.longshort.phase_timeout_s,
            end_run=lambda: ray.kill(self._handle),
        )

    def options(self, **options: Any) -> "WatchedRunner":
        """As of an actor class."""
        self._options.update(options)
        return self

    def remote(self) -> Any:
        """Check the cluster and start the task runner; `run_ppo` calls this when Ray is connected.

        Raises:
            UserError: the cluster is not what the run needs.
        """
        self.connected = True
        # what a process prints as it dies may not come this far
        print(f"Ray's own logs: {ray._private.worker.global_worker.node.get_logs_dir_path()}")
        activity.forget(self._root)
        if not self._joins:
            self._handle = self._class.options(**self._options).remote()
            self._begin_watching()
            return self._handle
        nodes = ray.nodes()
        check_capacity(nodes, self._device_groups, ray.get_runtime_context().gcs_address)
        check_nodes(nodes, self._root, self._models)
        wait_until_free(sum(self._device_groups))
        # soft: the command's node may have no CPU to give
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._handle = self._class.options(**self._options, scheduling_strategy=here).remote()
        self._watch.start()
        self._begin_watching()
        return self._handle

    def _begin_watching(self) -> None:
        self._processes.start()
        # Ray's own handler, which ends the command at once, has taken the place of the one before
        self.stop.install(is_running=True)

    def stop_watching(self) -> None:
        """The run is over; nothing is left of one that lost a process."""
        self._watch.stop()
        self._processes.stop()
        if self._processes.lost():
            self._processes.end_processes()

    def lost_process(self, wait_s: float = 0.0) -> Exception | None:
        """The error for a process that the run lost, if it did; waits up to `wait_s` seconds for word of it."""
        lost = self._processes.lost(wait_s)
        return process_failure(lost.how, self._root, self._command, lost.what) if lost else None

    def explain(self, error: RayError) -> Exception:
        """The most informative exception for an error that Ray reports of the run."""
        cause = root_cause(error)
        if isinstance(cause, (UserError, UnwrittenError)):
            return cause
        if unwritten := explain_unwritten(cause, self._root):
            return unwritten
        lost_process = self.lost_process(LOOKS_S)
        if lost_process and self._processes.lost_here():
            return lost_process
        if self._joins and self._handle:
            if not self._watch.lost():
                logger.error("the run failed; waiting up to %.0f s for word of a dead node", NOTICE_S)
            if lost := self._watch.lost(wait_s=NOTICE_S):
                return node_failure(lost, self._root, self._command, ray.get_runtime_context().gcs_address)
        if lost_process:
            return lost_process
        if isinstance(cause, RunDiedError):
            return stalled(cause, self._root, self._command)
        if isinstance(cause, RayActorError) and not cause.actor_init_failed:
            return process_failure(cause, self._root, self._command)
        return error
