"""The assumptions of a plan, typed; each is documented in `assumptions.yaml`, which holds the defaults."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt
from longshort_reward.errors import UserError
from longshort_reward.settings import Remedy, Settings, Share
from omegaconf import DictConfig, OmegaConf
from pydantic import BeforeValidator, Strict

FILE = Path(__file__).with_name("assumptions.yaml")
AUTO = "auto"
GIB = 2**30
GB = 10**9

_REMEDY = Remedy("must be a number above 0")


def _detected(value: Any) -> Any:
    if value is None:
        raise ValueError(_REMEDY.text)
    return None if value == AUTO else value


Positive = Annotated[float, Strict(), Gt(0), _REMEDY]
Detected = Annotated[Positive | None, BeforeValidator(_detected), _REMEDY]
"""A number, or None for `auto`: what this machine has."""


class GpuAssumptions(Settings):
    """The block `gpu`: the machine that the recipe is planned for."""

    count: Detected
    memory_gb: Detected
    peak_tflops: Positive
    memory_gb_per_s: Positive


class DiskAssumptions(Settings):
    """The block `disk`."""

    free_gb: Detected


class HostAssumptions(Settings):
    """The block `host`."""

    memory_gb: Detected


class Assumed(Settings):
    """The block `assume`."""

    used_share: Positive
    most_tokens: Positive
    length_spread: Positive
    turns: Annotated[float, Strict(), Ge(2), Remedy("must be 2 or more")]
    long_share: Share
    prompt_tokens: Positive
    chain_tokens: Positive
    thoughts: Positive
    records: Positive
    training_utilization: Positive
    scoring_utilization: Positive
    vllm_tokens_per_s: Positive
    transformers_tokens_per_s: Positive
    endpoint_tokens_per_s: Positive
    generation_utilization: Positive
    startup_minutes: Positive
    step_overhead_s: Positive
    disk_gb_per_s: Positive
    reserve_gb: Positive
    engine_workspace_gb: Positive
    sleeping_engine_gb: Positive


class Assumptions(Settings):
    """The blocks `gpu`, `disk`, `host` and `assume`."""

    gpu: GpuAssumptions
    disk: DiskAssumptions
    host: HostAssumptions
    assume: Assumed

    @property
    def gpu_count(self) -> int | None:
        """GPUs of a node; None: to be detected."""
        return None if self.gpu.count is None else int(self.gpu.count)

    @classmethod
    def of_recipe(cls, settings: Mapping[str, Any]) -> "Assumptions":
        """The blocks among a recipe's settings. Raises UserError for a key or a value."""
        assumptions = cls(
            gpu=GpuAssumptions.parse(settings["gpu"], "gpu"),
            disk=DiskAssumptions.parse(settings["disk"], "disk"),
            host=HostAssumptions.parse(settings["host"], "host"),
            assume=Assumed.parse(settings["assume"], "assume"),
        )
        count = assumptions.gpu.count
        if count is not None and count != int(count):
            raise UserError("gpu.count", count, "must be a whole number")
        return assumptions


def defaults() -> DictConfig:
    """The content of `assumptions.yaml`, below which a recipe's own keys go."""
    config = OmegaConf.load(FILE)
    assert isinstance(config, DictConfig)
    return config
