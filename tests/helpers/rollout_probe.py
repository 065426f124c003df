"""A program for `test_transformers_rollout`: the transformers rollout over real Ray actors, no trainer.

A frozen policy (standalone) and a learning one (hybrid) run side by side under one rollout name, as in a run
of the pair; a small actor plays the learning policy's worker. Prints what it saw as JSON.
"""

import asyncio
import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import ray
import torch
from omegaconf import DictConfig, OmegaConf
from transformers import AutoModelForCausalLM
from verl.workers.rollout.replica import RolloutReplicaRegistry

from verl_longshort.config.compose import compose_config
from verl_longshort.engines.weights import checksum

PROMPT = [2, 9, 10, 11]


def policy_config(model: str, role: str, *overrides: str) -> DictConfig:
    given = [f"longshort.policies.{r}.actor_rollout_ref.model.path={model}" for r in ("long", "short")]
    config = compose_config("longshort_trainer", ["device=cpu", *given, *overrides], unused=("data.", "reward."))
    OmegaConf.set_struct(config, False)
    config.actor_rollout_ref.model.path = model
    config.actor_rollout_ref.rollout.custom = {"role": role}
    return config.actor_rollout_ref


def shifted(model: str) -> Any:
    """The model with other weights: what a trainer would have made of it."""
    changed = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        for weight in changed.parameters():
            weight.add_(0.01)
    return changed


@ray.remote
class Trainer:
    """A worker that learns: holds the adapter and sends weights through it."""

    def __init__(self, config: DictConfig) -> None:
        from verl.workers.rollout.base import get_rollout_class

        os.environ["RANK"] = "0"
        adapter = get_rollout_class("transformers")
        self._model = shifted(config.model.path)
        self._adapter = adapter(config=config.rollout, model_config=config.model, device_mesh=None)

    async def sync(self, step: int, *, leave_out: int = 0) -> str:
        named = list(self._model.state_dict().items())
        await self._adapter.resume(["weights"])
        await self._adapter.update_weights(iter(named[leave_out:]), global_steps=step)
        await self._adapter.resume(["kv_cache"])
        return checksum(self._model)

    async def release(self) -> None:
        await self._adapter.release()


async def start(config: DictConfig, workers: list[Any] | None) -> Any:
    replica_class = RolloutReplicaRegistry.get("transformers")
    replica = replica_class(replica_rank=0, config=config.rollout, model_config=config.model, gpus_per_node=1)
    if workers is None:
        await replica.init_standalone()
    else:
        await replica.init_hybrid(SimpleNamespace(workers=workers))
    return replica


async def ask(replica: Any, request_id: str, prompt: list[int], **sampling: Any) -> Any:
    given = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}
    return await replica.server_handle.generate.remote(
        prompt_ids=prompt, sampling_params={**given, **sampling}, request_id=request_id
    )


async def failure(awaitable: Any) -> str:
    try:
        await awaitable
    except Exception as error:
        return str(error)
    return "nothing was raised"


async def probe(model: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    small_buckets = "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=0"
    learning = policy_config(model, "long", small_buckets)
    trainer = Trainer.remote(learning)
    hybrid, frozen = await asyncio.gather(start(learning, [trainer]), start(policy_config(model, "short"), None))
    seen["addresses"] = [hybrid.server_address, frozen.server_address]
    seen["before"] = await hybrid.server_handle.weights_checksum.remote()
    await hybrid.sleep()
    await frozen.sleep()
    seen["incomplete"] = await failure(trainer.sync.remote(6, leave_out=2))
    seen["trained"] = await trainer.sync.remote(7)
    seen["after"] = await hybrid.server_handle.weights_checksum.remote()
    seen["frozen"] = await frozen.server_handle.weights_checksum.remote()

    first = await ask(hybrid, "a", PROMPT, max_tokens=8, ignore_eos=True)
    second = await ask(hybrid, "b", [*PROMPT, *first.token_ids, 5], max_tokens=8)
    seen["first"] = first.model_dump()
    seen["second"] = second.model_dump()
    seen["unlimited"] = len((await ask(frozen, "c", PROMPT, ignore_eos=True)).token_ids)
    seen["bad_key"] = await failure(ask(hybrid, "d", PROMPT, beams=4))

    running = asyncio.create_task(ask(hybrid, "e", PROMPT, max_tokens=400, ignore_eos=True))
    while not (await hybrid.server_handle.stats.remote())["running"]:
        await asyncio.sleep(0.01)
    await hybrid.abort_all_requests(reject_request=True)
    seen["aborted"] = (await running).model_dump()
    seen["rejected"] = (await ask(hybrid, "f", PROMPT, max_tokens=4)).model_dump()
    await hybrid.resume_generation()
    seen["resumed"] = (await ask(hybrid, "g", PROMPT, max_tokens=4)).model_dump()
    return seen


def main() -> None:
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    print("SEEN " + json.dumps(asyncio.run(probe(sys.argv[1]))))
    ray.shutdown()


if __name__ == "__main__":
    main()
