"""Replay buffers, and the rows of trajectories in TransferQueue: split by role, read facts, write rewards.

verl's buffer polls every two seconds, waits forever when rollouts die, and replaces a failed group by
padding. None of that suits trajectories that take less than a second, or a run that nobody watches.
"""

import time
from collections.abc import Mapping
from typing import Any

import torch
import transfer_queue as tq
from longshort_reward import RoleReward
from longshort_reward.protocol import ROLES, Role
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from typing_extensions import Self
from verl.trainer.ppo.v1 import PPOTrainerSync
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from verl_longshort.verl_plugin.trainer.group_reward import ReplayKey

POLL_INTERVAL_S = 0.05


class WatchedReplayBuffer(ReplayBuffer):
    """verl's buffer; raises when a rollout failed, or when no trajectory has ended for `timeout_s` seconds."""

    def __init__(self, *, timeout_s: float, **kwargs: Any) -> None:
        super().__init__(poll_interval=POLL_INTERVAL_S, **kwargs)
        self.timeout_s = timeout_s
        self._finished = -1
        self._progress_at = 0.0

    @classmethod
    def of_trainer(cls, trainer: PPOTrainerSync, **kwargs: Any) -> Self:
        """As verl's trainer would build its own from its configuration; `kwargs` are those of the class itself."""
        v1 = trainer.config.trainer.v1
        return cls(
            trainer_mode=trainer.trainer_mode,
            trainer_config=v1.get(trainer.trainer_mode, {}),
            max_off_policy_threshold=v1.sampler.max_off_policy_threshold,
            max_off_policy_strategy=v1.sampler.max_off_policy_strategy,
            sampler_kwargs=v1.sampler.sampler_kwargs,
            refill_fn=trainer._add_prompts_to_generate,
            **kwargs,
        )

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


def split_by_role(batch: KVBatchMeta) -> dict[Role, KVBatchMeta]:
    """One batch per role, so that no request to TransferQueue ever mixes the two token spaces."""
    split = {role: KVBatchMeta(partition_id=batch.partition_id, keys=[], tags=[]) for role in ROLES}
    for key, tag in zip(batch.keys, batch.tags, strict=True):
        own = split[ReplayKey.of(key).role]
        own.keys.append(key)
        own.tags.append(tag)
    return split


def joined(batches: list[KVBatchMeta]) -> KVBatchMeta:
    """All rows of several batches of one partition."""
    return KVBatchMeta(
        partition_id=batches[0].partition_id,
        keys=[key for b in batches for key in b.keys],
        tags=[tag for b in batches for tag in b.tags],
    )


def read_extra_fields(batch: KVBatchMeta) -> list[dict[str, Any]]:
    """What the agent loop recorded with each row."""
    return [getattr(value, "data", value) for value in _column(batch, "extra_fields")]


def write_rewards(batch: KVBatchMeta, rewards: Mapping[str, RoleReward]) -> None:
    """Put each row's reward on the last token that its role wrote itself.

    A reward on a masked token would be lost to estimators that look at own tokens only (GAE).
    """
    masks = _column(batch, "response_mask")
    scores = [place_reward(mask, rewards[key].total) for key, mask in zip(batch.keys, masks, strict=True)]
    nested = torch.nested.as_nested_tensor(scores, layout=torch.jagged)
    fields = TensorDict({"rm_scores": nested}, batch_size=len(scores))
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)


def place_reward(mask: torch.Tensor, reward: float) -> torch.Tensor:
    """Token-level scores, shape (response length,), with `reward` at the last position where `mask` is 1."""
    scores = torch.zeros(mask.shape[0], dtype=torch.float32)
    own = mask.nonzero()
    scores[int(own[-1]) if len(own) else -1] = reward
    return scores


def own_tokens(batch: KVBatchMeta) -> int:
    """Tokens of the batch that the role wrote itself."""
    return sum(int(mask.sum()) for mask in _column(batch, "response_mask"))


def _column(batch: KVBatchMeta, field: str) -> Any:
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=[field])[field]
