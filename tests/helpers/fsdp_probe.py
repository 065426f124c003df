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


def build(kind: str, model: str, *, forward_only: bool, **adapters: Any) -> Any:
    config = HFModelConfig(
        path=model,
        model_type=kind,
        use_remove_padding=False,
        enable_gradient_checkpointing=False,
        override_config={"attn_implementation": "sdpa"},
        **adapters,
    )
    engine = EngineRegistry.new(
        kind,
        "fsdp2",
        model_config=config,
        engine_config=FSDPEngineConfig(
            strategy="fsdp2", forward_only=forward_only, use_torch_compile=False, mixed_precision=FLOAT32
        ),
        optimizer_config=FSDPOptimizerConfig(lr=1e-2, total_training_steps=10),
        checkpoint_config=CheckpointConfig(save_lora_only=True),
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


def sent(model: str, folder: str) -> dict[str, Any]:
    """An actor with adapters sends itself: what it computes, and whether its base is as before."""
    engine = build("language_model", model, forward_only=False, lora_rank=4, lora={"merge": True})
    ids = torch.arange(6)[None]
    with torch.no_grad():
        for name, parameter in engine.module.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.03)
        before = engine.module(input_ids=ids, use_cache=False).logits
        weights, peft_config = engine.get_per_tensor_param()
        whole = dict(weights)
        after = engine.module(input_ids=ids, use_cache=False).logits
        with engine.disable_adapter():
            base = engine.module(input_ids=ids, use_cache=False).logits
    assert peft_config is None
    torch.save({"weights": whole, "logits": before, "base": base}, Path(folder) / f"sent{dist.get_rank()}.pt")
    return {"unchanged": torch.equal(before, after), "dtypes": sorted({str(v.dtype) for v in whole.values()})}


def resumed(model: str, folder: str) -> dict[str, Any]:
    """An actor with adapters is saved after an update and goes on; another one is loaded and does the same."""
    first = build("language_model", model, forward_only=False, lora_rank=4, lora={"merge": True})
    update(first)
    first.save_checkpoint(f"{folder}/saved")
    second = build("language_model", model, forward_only=False, lora_rank=4, lora={"merge": True})
    different = not equal(first, second)
    second.load_checkpoint(f"{folder}/saved", del_local_after_load=False)
    loaded = equal(first, second)
    for engine in (first, second):
        update(engine)
    saved = torch.load(
        f"{folder}/saved/model_world_size_{dist.get_world_size()}_rank_{dist.get_rank()}.pt", weights_only=False
    )
    alone = all("lora_" in name for name in saved)
    return {"different": different, "loaded": loaded, "goes on alike": equal(first, second), "alone": alone}


def update(engine: Any) -> None:
    ids = torch.arange(6)[None]
    logits = engine.module(input_ids=ids, use_cache=False).logits
    torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
    engine.optimizer_step()
    engine.optimizer_zero_grad()


def equal(one: Any, other: Any) -> bool:
    """Bit by bit, of this rank's shards."""
    shards = [[p.to_local() for p in engine.module.parameters()] for engine in (one, other)]
    return all(torch.equal(a, b) for a, b in zip(*shards, strict=True))


def main() -> None:
    model, folder = sys.argv[1:]
    open_process_group()
    found = {
        "actor": facts(build("language_model", model, forward_only=False)),
        "reference": facts(build("language_model", model, forward_only=True)),
        "critic": facts(build("value_model", model, forward_only=False)),
        "sent": sent(model, folder),
        "resumed": resumed(model, folder),
    }
    (Path(folder) / f"rank{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
