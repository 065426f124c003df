"""The assumptions of a plan, typed; each is documented in `assumptions.yaml`, which holds the defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from omegaconf import DictConfig, OmegaConf

from verl_longshort.config.pair import check_keys

FILE = Path(__file__).with_name("assumptions.yaml")
AUTO = "auto"
GIB = 2**30
GB = 10**9


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """The block `assume`."""

    used_share: float
    most_tokens: float
    prompt_tokens: float
    chain_tokens: float
    thoughts: float
    records: float
    training_utilization: float
    scoring_utilization: float
    vllm_tokens_per_s: float
    transformers_tokens_per_s: float
    endpoint_tokens_per_s: float
    generation_utilization: float
    startup_minutes: float
    step_overhead_s: float
    disk_gb_per_s: float
    reserve_gb: float
    engine_workspace_gb: float
    sleeping_engine_gb: float


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """The blocks `gpu`, `disk`, `host` and `assume`. None: `auto`."""

    gpu_count: int | None
    gpu_memory_gb: float | None
    peak_tflops: float
    disk_free_gb: float | None
    host_memory_gb: float | None
    assume: Assumed

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> "Assumptions":
        """Read the blocks among a recipe's settings. Raises UserError for a key or a value."""
        known = {str(name): tuple(map(str, block)) for name, block in defaults().items()}
        blocks = {name: settings[name] for name in known}
        for name, block in blocks.items():
            if not isinstance(block, Mapping):
                raise UserError(name, block, f"must be a mapping with the keys {', '.join(known[name])}")
            check_keys(block, name, known[name])
        count = _number(blocks, "gpu", "count")
        if count is not None and count != int(count):
            raise UserError("gpu.count", count, "must be a whole number")
        return cls(
            gpu_count=None if count is None else int(count),
            gpu_memory_gb=_number(blocks, "gpu", "memory_gb"),
            peak_tflops=_number(blocks, "gpu", "peak_tflops") or 0.0,
            disk_free_gb=_number(blocks, "disk", "free_gb"),
            host_memory_gb=_number(blocks, "host", "memory_gb"),
            assume=Assumed(**{f.name: _number(blocks, "assume", f.name) or 0.0 for f in fields(Assumed)}),
        )


def defaults() -> DictConfig:
    """The content of `assumptions.yaml`, below which a recipe's own keys go."""
    config = OmegaConf.load(FILE)
    assert isinstance(config, DictConfig)
    return config


def _number(blocks: Mapping[str, Mapping[str, Any]], block: str, key: str) -> float | None:
    value = blocks[block][key]
    if value == AUTO and defaults()[block][key] == AUTO:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise UserError(f"{block}.{key}", value, "must be a number above 0")
    return float(value)
