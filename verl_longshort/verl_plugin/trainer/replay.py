"""The replay buffers of a pair: verl's own with a short poll, a watchdog and a count of what failed, and one for rows
that are given.

verl's buffer polls every two seconds, waits forever when rollouts die, and hands out groups with whatever rows they
have. None of that suits trajectories that take less than a second, or a run that nobody watches.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import transfer_queue as tq
from longshort_reward.errors import UserError
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import PPOTrainerSync

from verl_longshort.base.errors import RunDiedError
from verl_longshort.base.progress import report
from verl_longshort.verl_plugin.rollout.failures import PARTITION, FailureKind
from verl_longshort.verl_plugin.run.stop import StopFile
from verl_longshort.verl_plugin.trainer.dynamic_sampling import TRAIN, Draws, FilteringReplayBuffer, SharedValue
from verl_longshort.verl_plugin.trainer.failures import FailureCount
from verl_longshort.verl_plugin.trainer.group_reward import ReplayKey

POLL_INTERVAL_S = 0.05
TELL_S = 1.0
"""How often it is told how many problems of a step are done."""
_TRAIN, _VALIDATE = TRAIN, "val"


class WatchedReplayBuffer(FilteringReplayBuffer):
    """The buffer of `trainer`.

    A trajectory that failed is left out of its group. A group keeps at least half of its trajectories, and two to
    compare; otherwise all of it is left out, and the step learns from the other groups.

    Args:
        trainer: whose data and configuration it uses.
        timeout_s: seconds without any finished trajectory after which it raises.
        max_failed_share: see `FailureCount`.
        rows: of each trajectory; one per role.
        prefix: of its metrics, `{prefix}/failed/{kind}` and `{prefix}/failed_groups`.
        shared_value, draws: see `FilteringReplayBuffer`.
    """

    stop: StopFile | None = None
    """Where to look whether the run shall end, while it waits."""

    def __init__(
        self,
        trainer: PPOTrainerSync,
        *,
        timeout_s: float,
        max_failed_share: float,
        rows: int,
        prefix: str,
        shared_value: SharedValue,
        draws: Draws,
    ) -> None:
        super().__init__(trainer, poll_interval=POLL_INTERVAL_S, shared_value=shared_value, draws=draws)
        rollout = trainer.config.actor_rollout_ref.rollout
        self.timeout_s = timeout_s
        self._rows = rows
        self._prefix = prefix
        self._sessions = {_TRAIN: rollout.n, _VALIDATE: rollout.val_kwargs.n}
        self._failures = {partition: FailureCount(max_failed_share) for partition in self._sessions}
        # of the sampling that is going on: sessions that failed, groups without rows to wait for, groups left out
        self._failed: set[str] = set()
        self._lost: set[str] = set()
        self._dropped = 0
        self._validation: Counter[str] = Counter()
        self._finished = -1
        self._progress_at = 0.0

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """Wait for `batch_size` finished groups; hand out the trajectories that did not fail.

        Raises:
            UserError: too many trajectories failed.
            RunDiedError: nothing ended in time, or an engine's process is gone.
        """
        self._finished, self._progress_at = -1, time.monotonic()
        self._failed, self._lost, self._dropped = set(), set(), 0
        # dynamic sampling generates more
        batches = self._batches if self.filter_groups_metric is not None and partition_id == _TRAIN else 1
        self._failures[partition_id].begin(batches * batch_size * self._sessions[partition_id])
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        failed = self._failures[partition_id].end()
        if partition_id == _VALIDATE:
            self._validation += failed
            return batch, metrics
        return batch, {**metrics, **_named(self._prefix, failed), f"{self._prefix}/failed_groups": self._dropped}

    def validation_failures(self) -> dict[str, float]:
        """How many trajectories failed in the validation that has just ended, named `val/failed/{kind}`."""
        failed, self._validation = self._validation, Counter()
        return _named("val", failed)

    def _sync_metadata_from_transfer_queue(self) -> None:
        super()._sync_metadata_from_transfer_queue()
        # TransferQueue makes a key before it gives it its tag
        notes = {key: tag for key, tag in self.partitions.pop(PARTITION, {}).items() if "kind" in tag}
        if notes:
            tq.kv_clear(keys=list(notes), partition_id=PARTITION)
        for session, tag in notes.items():
            if tag["lost_actor"]:
                raise RunDiedError(f"a trajectory lost its engine: {tag['reason']}")
            self._failed.add(session)
            partition = _TRAIN if _group(session) in self.prompt_global_steps[_TRAIN] else _VALIDATE
            self._failures[partition].add(tag["kind"], tag["reason"])
        short = {_group(session) for session in self._failed}
        for partition in self._sessions:
            for uid in self.failure_keys[partition] - self._lost:
                self._count_lost(partition, uid)
            # to verl these groups ended well
            self.failure_keys[partition] |= self.finished_keys[partition] & short
            self.finished_keys[partition] -= short

    def _count_lost(self, partition: str, uid: str) -> None:
        """Count the sessions of a group that ended without a row and without a note."""
        self._lost.add(uid)
        known = len(_whole(self.partitions[partition], uid, self._rows)) // self._rows
        known += sum(_group(session) == uid for session in self._failed)
        if (lost := self._sessions[partition] - known) > 0:
            self._failed |= {f"{uid}_lost-{number}" for number in range(lost)}
            reason = "verl's agent loop worker failed; its log has a traceback"
            self._failures[partition].add(FailureKind.OTHER, reason, lost)

    def _materialize_batch(
        self, partition_id: str, selected_prompt_uids: list[str], partition_snapshot: dict[str, dict[str, Any]]
    ) -> KVBatchMeta:
        batch = super()._materialize_batch(partition_id, selected_prompt_uids, partition_snapshot)
        failed = Counter(_group(session) for session in self._failed)
        left_out: set[str] = set()
        for uid in set(selected_prompt_uids) & set(failed):
            keys = [key for key in batch.keys if ReplayKey.of(key).group == uid]
            whole = _whole(keys, uid, self._rows)
            left_out |= set(keys) - set(whole)
            # a validation compares nothing
            if partition_id == _TRAIN and len(whole) // self._rows < max(2, failed[uid]):
                left_out |= set(whole)
                self._dropped += 1
        if left_out:
            tq.kv_clear(keys=sorted(left_out), partition_id=partition_id)
            batch = batch.select_keys([key for key in batch.keys if key not in left_out])
        if not batch.keys:
            remedy = "failures left no group to learn from: raise rollout.n or data.train_batch_size"
            raise UserError("actor_rollout_ref.rollout.n", self._sessions[partition_id], remedy)
        return batch

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        if self.stop is not None:
            self.stop.check()
        ended = len(self.finished_keys[partition_id]) + len(self.partitions[partition_id]) + len(self._failed)
        if ended != self._finished:
            self._finished, self._progress_at = ended, time.monotonic()
        elif time.monotonic() - self._progress_at > self.timeout_s:
            waiting = len(self.pending_keys[partition_id]) + len(self.running_keys[partition_id])
            raise RunDiedError(
                f"no trajectory ended for longshort.rollout_timeout_s = {self.timeout_s} s while {waiting} "
                "groups were waiting; raise it if that is normal"
            )
        return super()._wait_for_next_poll(partition_id, last_debug_time)


def _group(session: str) -> str:
    return session.rsplit("_", 1)[0]


def _whole(keys: Iterable[str], uid: str, rows: int) -> list[str]:
    """The keys of a group's trajectories that have all their rows."""
    sessions: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        if ReplayKey.of(key).group == uid:
            sessions[ReplayKey.of(key).session].append(key)
    return [key for own in sessions.values() if len(own) == rows for key in own]


def _named(prefix: str, failed: Counter[str]) -> dict[str, float]:
    return {f"{prefix}/failed/{kind}": failed[kind] for kind in FailureKind}


class PairReplayBuffer(WatchedReplayBuffer):
    """Tells how many problems are done, and lets the trainer note the rows of a validation before verl forgets them."""

    def __init__(
        self,
        trainer: PPOTrainerSync,
        *,
        total_steps: int,
        note_validated: Callable[[KVBatchMeta], None],
        **settings: Any,
    ) -> None:
        super().__init__(trainer, **settings)
        self._note = note_validated
        self._total = total_steps
        self._asked = (0, 0)
        self._told_at = 0.0

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """See `WatchedReplayBuffer.sample`."""
        self._asked, self._told_at = (global_steps, batch_size), time.monotonic()
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if partition_id == "val":
            self._note(batch)
        return batch, metrics

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        if time.monotonic() - self._told_at > TELL_S:
            self._told_at = time.monotonic()
            step, asked = self._asked
            done = f"{len(self.finished_keys[partition_id])} of {asked} problems"
            what = "validating" if partition_id == "val" else "generating trajectories"
            # a validation before the first step is no part of the steps
            total = self._total if step else 0
            report(max(step - 1, 0), total, f"step {step}/{self._total}: {what}, {done}")
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
