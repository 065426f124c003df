"""The rollouts that this package registers with verl: where their classes are, and what a pair cannot have of them.

A new one is an entry of `ROLLOUTS`, with its replica and adapter. Light: no verl, no torch.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from verl_longshort.engines.spec import EngineSpec
from verl_longshort.engines.transformers import TRANSFORMERS
from verl_longshort.engines.vllm import ON_CPU, VLLM

Refusals = Iterator[tuple[str, Any, str]]
"""Key below `rollout`, its value, and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """An engine as a rollout of verl, under the engine's name."""

    engine: EngineSpec
    replica: str
    """Dotted path of the class; imported when verl starts such a rollout."""
    adapter: str
    """Dotted path of the class on the trainer's side."""
    refused: Callable[[Mapping[str, Any]], Refusals] = lambda rollout: iter(())
    """What of a policy's `rollout` configuration a pair cannot have."""
    on_cpu: Mapping[str, Any] = field(default_factory=dict)
    """Keys below `rollout` that it needs on a CPU, in place of those of the configuration."""
    fills_buckets: bool = False
    """Weights reach it in buckets of a fixed size (`checkpoint_engine.update_weights_bucket_megabytes`)."""
    sleeps_with_weights: bool = False
    """It has its weights when it wakes up; others need them sent again."""

    def load_replica(self) -> type:
        """The replica's class."""
        module, _, name = self.replica.rpartition(".")
        found: type = getattr(importlib.import_module(module), name)
        return found


def _refused_of_all(rollout: Mapping[str, Any]) -> Refusals:
    if rollout.get("disaggregation", {}).get("enabled"):
        remedy = "prefill and decode servers are not supported for a pair; set enabled to false"
        yield "disaggregation.enabled", True, remedy
    if rollout.get("prometheus", {}).get("enable"):
        remedy = "verl's configuration file of Prometheus holds one policy's servers; set enable to false"
        yield "prometheus.enable", True, remedy


def _refused_of_vllm(rollout: Mapping[str, Any]) -> Refusals:
    yield from _refused_of_all(rollout)
    if rollout["free_cache_engine"] and not rollout.get("enable_sleep_mode", True):
        yield "enable_sleep_mode", False, "free_cache_engine needs it; set true"


_HERE = "verl_longshort.verl_plugin.rollout"
ROLLOUTS = {
    rollout.engine.name: rollout
    for rollout in (
        # takes the place of verl's own, which it is for a rollout without a role
        Rollout(
            engine=VLLM,
            replica=f"{_HERE}.vllm_replica.VllmReplica",
            adapter=f"{_HERE}.vllm_adapter.VllmAdapter",
            refused=_refused_of_vllm,
            # vLLM's build for CPUs has no sleep mode
            on_cpu={**ON_CPU, "free_cache_engine": False, "enable_sleep_mode": False},
            fills_buckets=True,
        ),
        Rollout(
            engine=TRANSFORMERS,
            replica=f"{_HERE}.server.TransformersReplica",
            adapter=f"{_HERE}.adapter.TransformersAdapter",
            refused=_refused_of_all,
            sleeps_with_weights=True,
        ),
    )
}
