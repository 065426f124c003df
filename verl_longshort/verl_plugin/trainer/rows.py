"""Rows of trajectories in TransferQueue: split by role, read facts, write rewards."""

from collections.abc import Mapping
from typing import Any

import torch
import transfer_queue as tq
from longshort_reward import RoleReward
from longshort_reward.protocol import ROLES, Role
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from verl_longshort.verl_plugin.trainer.group_reward import ReplayKey


def split_by_role(batch: KVBatchMeta) -> dict[Role, KVBatchMeta]:
    """One batch per role, so that no request to TransferQueue ever mixes the two token spaces."""
    keys = {role: [key for key in batch.keys if ReplayKey.of(key).role is role] for role in ROLES}
    return {role: batch.select_keys(own) for role, own in keys.items()}


def kinds_of(batch: KVBatchMeta) -> list[int]:
    """What each row is: the place of its role in `ROLES`, behind them verl's synthetic rows."""
    return [
        len(ROLES) if tag.get("is_padding", False) else ROLES.index(ReplayKey.of(key).role)
        for key, tag in zip(batch.keys, batch.tags, strict=True)
    ]


def parts_by_role(batch: KVBatchMeta) -> list[KVBatchMeta]:
    """The rows of each role, as far as there are any; verl's synthetic rows, which are of no role, with the first."""
    kinds = dict(zip(batch.keys, kinds_of(batch), strict=True))
    there = sorted({kind for kind in kinds.values() if kind < len(ROLES)}) or [len(ROLES)]
    parts: dict[int, list[str]] = {kind: [] for kind in there}
    for key, kind in kinds.items():
        parts[kind if kind in parts else there[0]].append(key)
    return [batch.select_keys(keys) for keys in parts.values()]


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
    scores = [place_reward(mask, on_grid(rewards[key].total)) for key, mask in zip(batch.keys, masks, strict=True)]
    nested = torch.nested.as_nested_tensor(scores, layout=torch.jagged)
    fields = TensorDict({"rm_scores": nested}, batch_size=len(scores))
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)


def on_grid(reward: float) -> float:
    """The reward rounded to a multiple of 2^-17 (0.0000076).

    Sums of a group are then exact in single precision, up to 64 rewards below 2, so that equal rewards have no
    deviation. Otherwise verl's division by deviation + 10^-6 makes rounding errors of equal rewards an advantage of up
    to 0.1, the same for the whole group.
    """
    return round(reward * 2**17) / 2**17


def place_reward(mask: torch.Tensor, reward: float) -> torch.Tensor:
    """Token-level scores, shape (response length,), with `reward` at the last position where `mask` is 1."""
    scores = torch.zeros(mask.shape[0], dtype=torch.float32)
    own = mask.nonzero()
    scores[int(own[-1]) if len(own) else -1] = reward
    return scores


def own_tokens(batch: KVBatchMeta) -> dict[str, int]:
    """Tokens of each row that its role wrote itself, by key."""
    masks = _column(batch, "response_mask")
    return {key: int(mask.sum()) for key, mask in zip(batch.keys, masks, strict=True)}


def read_ground_truths(batch: KVBatchMeta) -> list[str]:
    """The correct answer to each row's problem."""
    return [str(getattr(value, "data", value)["ground_truth"]) for value in _column(batch, "reward_model")]


def read_advantages(batch: KVBatchMeta) -> dict[str, float]:
    """Key -> mean advantage over the tokens that the row taught with, 0 without any; of rows that were learned from."""
    fields = ["advantages", "response_mask"]
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
    columns = zip(batch.keys, data["advantages"], data["response_mask"], strict=True)
    return {key: float((row * mask).sum() / mask.sum().clamp(min=1)) for key, row, mask in columns}


def read_texts(batch: KVBatchMeta, tokenizer: Any) -> dict[str, tuple[str, str]]:
    """Key -> prompt and response of each row, as the tokenizer of the row's role decodes them."""
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["prompts", "responses"])
    return {
        key: (
            tokenizer.decode(prompt.tolist(), skip_special_tokens=True),
            tokenizer.decode(response.tolist(), skip_special_tokens=True),
        )
        for key, prompt, response in zip(batch.keys, data["prompts"], data["responses"], strict=True)
    }


def without_padding(batch: KVBatchMeta) -> KVBatchMeta:
    """The rows that trajectories are in: verl fills a learner's batch up with copies."""
    return batch.select_keys(
        [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
    )


def _column(batch: KVBatchMeta, field: str) -> Any:
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=[field])[field]
