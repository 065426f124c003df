"""One rank that builds and uses the CPU engines; started by torchrun from `test_fsdp_cpu.py`.

Arguments: model folder, folder for the result of each rank.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from verl.trainer.config import CheckpointConfig
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.engine import EngineRegistry

from verl_longshort.verl_plugin.platform.cpu import open_process_group

FLOAT32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}


def build(kind: str, model: str, *, forward_only: bool) -> Any:
    config = HFModelConfig(
        path=model,
        model_type=kind,
        use_remove_padding=False,
        enable_gradient_checkpointing=False,
        override_config={"attn_implementation": "sdpa"},
    )
    engine = EngineRegistry.new(
        kind,
        "fsdp2",
        model_config=config,
        engine_config=FSDPEngineConfig(
            strategy="fsdp2", forward_only=forward_only, use_torch_compile=False, mixed_precision=FLOAT32
        ),
        optimizer_config=FSDPOptimizerConfig(lr=1e-2, total_training_steps=10),
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()
    return engine


def facts(engine: Any) -> dict[str, Any]:
    weights = [p for p in engine.module.parameters() if isinstance(p, DTensor)]
    logits = engine.module(input_ids=torch.arange(6)[None], use_cache=False).logits
    return {
        "class": type(engine).__name__,
        "module": type(engine.module).__name__.removeprefix("FSDP"),
        "model_type": engine.model_config.model_type,
        "forward_only": engine.engine_config.forward_only,
        "optimizer": engine.optimizer is not None,
        "devices": sorted({str(p.device) for p in weights}),
        "local": sum(p.to_local().numel() for p in weights),
        "total": sum(p.numel() for p in weights),
        "logits": logits.detach().flatten()[:8].tolist(),
        "shape": list(logits.shape),
    }


def main() -> None:
    model, folder = sys.argv[1:]
    open_process_group()
    found = {
        "actor": facts(build("language_model", model, forward_only=False)),
        "reference": facts(build("language_model", model, forward_only=True)),
        "critic": facts(build("value_model", model, forward_only=False)),
    }
    (Path(folder) / f"rank{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
