"""The replay buffers of a pair: verl's own with a short poll and a watchdog, and one for rows that are given.

verl's buffer polls every two seconds, waits forever when rollouts die, and replaces a failed group by
padding. None of that suits trajectories that take less than a second, or a run that nobody watches.
"""

import time
from typing import Any

from verl.trainer.ppo.v1 import PPOTrainerSync

from verl_longshort.verl_plugin.trainer.dynamic_sampling import FilteringReplayBuffer, SharedValue

POLL_INTERVAL_S = 0.05


class WatchedReplayBuffer(FilteringReplayBuffer):
    """The buffer of `trainer`; raises when a rollout failed, or when no trajectory ended for `timeout_s` seconds."""

    def __init__(self, trainer: PPOTrainerSync, *, timeout_s: float, shared_value: SharedValue) -> None:
        super().__init__(trainer, poll_interval=POLL_INTERVAL_S, shared_value=shared_value)
        self.timeout_s = timeout_s
        self._finished = -1
        self._progress_at = 0.0

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """Wait for `batch_size` finished groups.

        Raises:
            RuntimeError: a group failed, or nothing ended in time.
        """
        self._finished, self._progress_at = -1, time.monotonic()
        return super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)

    def _sync_metadata_from_transfer_queue(self) -> None:
        super()._sync_metadata_from_transfer_queue()
        failed = sum(len(keys) for keys in self.failure_keys.values())
        if failed:
            raise RuntimeError(f"{failed} groups of trajectories failed; the agent loop's log above has each traceback")

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        ended = len(self.finished_keys[partition_id]) + len(self.partitions[partition_id])
        if ended != self._finished:
            self._finished, self._progress_at = ended, time.monotonic()
        elif time.monotonic() - self._progress_at > self.timeout_s:
            waiting = len(self.pending_keys[partition_id]) + len(self.running_keys[partition_id])
            raise RuntimeError(
                f"no trajectory ended for longshort.rollout_timeout_s = {self.timeout_s} s while {waiting} "
                "groups were waiting; look at the logs of agent loop and servers, or raise the limit"
            )
        return super()._wait_for_next_poll(partition_id, last_debug_time)


class PresetBatch:
    """Stands in for a replay buffer in a policy's trainer: `sample` returns `rows`, which the pair sets, once."""

    rows: Any = None

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """The rows that were set last."""
        if self.rows is None:
            raise RuntimeError("a policy was asked to learn before its rows were set")
        rows, self.rows = self.rows, None
        return rows, {}
