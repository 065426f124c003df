"""The trainer's side of the transformers rollout: runs in every actor worker and sends weights to its server.

One worker rank has one server; `names.server_name` says how it is called.
"""

import os
from collections.abc import AsyncIterable, Iterable
from typing import Any

import ray
import torch
from longshort_reward.errors import UserError
from torch import Tensor
from verl.workers.config import RolloutConfig
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.utils import ensure_async_iterator

from verl_longshort.engines.weights import PackedTensor
from verl_longshort.verl_plugin.rollout.names import server_name

_ROLLOUT = "actor_rollout_ref.rollout"
_PARALLEL_SIZES = ("tensor_model_parallel_size", "data_parallel_size", "pipeline_model_parallel_size")
_WIRE_FORMAT = "named_tensors"


def check_one_process(config: RolloutConfig) -> None:
    """Raise UserError when a server would have to spread over several devices."""
    for key in _PARALLEL_SIZES:
        if (size := getattr(config, key)) != 1:
            remedy = "a transformers server is one process with the whole model; set 1, replicas share the load"
            raise UserError(f"{_ROLLOUT}.{key}", size, remedy)


class TransformersAdapter(BaseRollout):
    """verl's handle on the server that belongs to this worker's rank."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        check_one_process(self.config)
        self.replica_rank = int(os.environ["RANK"]) if replica_rank == -1 else replica_rank
        self.is_leader_rank = True
        self._handle: Any = None

    @property
    def _server(self) -> Any:
        # looked up late: servers are started after the workers
        if self._handle is None:
            self._handle = ray.get_actor(server_name(self.config, self.replica_rank))
        return self._handle

    async def resume(self, tags: list[str]) -> None:
        """Wake the server; `tags` names what of it: weights, kv_cache."""
        if self.config.free_cache_engine:
            await self._server.wake_up.remote(tags)

    async def release(self) -> None:
        """Let the server finish and give its memory back."""
        if self.config.free_cache_engine:
            await self._server.sleep.remote()

    @torch.no_grad()
    async def update_weights(
        self,
        weights: Iterable[tuple[str, Tensor]] | AsyncIterable[tuple[str, Tensor]],
        global_steps: int | None = None,
        wire_format: str = _WIRE_FORMAT,
        peft_config: Any = None,
        base_sync_done: bool = True,
    ) -> None:
        """Send all weights, bucket by bucket, as version `global_steps`.

        Every rank gets the tensors from a collective, so every rank must walk `weights` to the end.
        Raises UserError for LoRA weights that are not merged and for delta updates.
        """
        if peft_config is not None:
            remedy = "a transformers server takes whole weights only; set true"
            raise UserError("actor_rollout_ref.model.lora.merge", False, remedy)
        if wire_format != _WIRE_FORMAT:
            remedy = f"a transformers server takes {_WIRE_FORMAT} only; use another backend"
            raise UserError(f"{_ROLLOUT}.checkpoint_engine.backend", wire_format, remedy)
        limit = self.config.checkpoint_engine.update_weights_bucket_megabytes << 20
        bucket: list[PackedTensor] = []
        size = 0
        async for name, tensor in ensure_async_iterator(weights):
            bucket.append(PackedTensor.of(name, tensor))
            size += tensor.nbytes
            if size >= limit:
                await self._server.load_weights.remote(bucket)
                bucket, size = [], 0
        await self._server.load_weights.remote(bucket)
        await self._server.finish_weights.remote(global_steps)
