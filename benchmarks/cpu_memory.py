"""Memory and processor time of a policy's update on a CPU, by the settings that bound it.

verl's training engine, as a worker of `longshort train device=cpu` runs it, alone in a process for each setting: the
log-probs and entropies of some rows of unequal length, then one update on them, in fp32. Peaks are of resident memory;
the engine alone holds weights, gradients and both moments, 16 bytes a parameter. A difference is the largest of the
log-probs to those of the first setting; the last place of a row has no next token, and is not looked at.

    python benchmarks/cpu_memory.py MODEL                       # a folder with a causal language model
    python benchmarks/cpu_memory.py MODEL --rows 4 --tokens 60  # smoke
"""

import argparse
import json
import os
import random
import resource
import socket
import subprocess
import sys
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

SETTINGS: dict[str, dict[str, Any]] = {
    "verl's defaults": {"limit": 16384, "fused": False, "checkpointing": False},
    "fused head": {"limit": 16384, "fused": True, "checkpointing": False},
    "512 tokens a micro batch": {"limit": 512, "fused": False, "checkpointing": False},
    "both": {"limit": 512, "fused": True, "checkpointing": False},
    "both, and gradient checkpointing": {"limit": 512, "fused": True, "checkpointing": True},
}
TIMEOUT_S = 900.0


def build(model: str, limit: int, fused: bool, checkpointing: bool) -> Any:
    """verl's engine of a policy. `limit`: tokens of a micro batch."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
    from verl.workers.engine import EngineRegistry

    precision = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    engine = EngineRegistry.new(
        "language_model",
        "fsdp2",
        model_config=HFModelConfig(
            path=model,
            model_type="language_model",
            use_remove_padding=False,
            enable_gradient_checkpointing=checkpointing,
            use_fused_kernels=fused,
            fused_kernel_options={"impl_backend": "torch"},
            override_config={"attn_implementation": "sdpa"},
        ),
        engine_config=FSDPEngineConfig(
            strategy="fsdp2",
            forward_only=False,
            use_torch_compile=False,
            mixed_precision=precision,
            use_dynamic_bsz=True,
            max_token_len_per_gpu=limit,
            infer_max_token_len_per_gpu=limit,
        ),
        optimizer_config=FSDPOptimizerConfig(lr=1e-5, total_training_steps=10),
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()
    return engine


def batch(rows: int, tokens: int, vocabulary: int, limit: int, fused: bool) -> Any:
    """Rows of half to one and a half times `tokens` random tokens; each but the last predicts the next one."""
    from verl.utils import tensordict_utils

    draw = random.Random(0)
    lengths = [draw.randint(tokens // 2, tokens * 3 // 2) for _ in range(rows)]
    ids = [torch.tensor(draw.choices(range(vocabulary), k=length)) for length in lengths]

    def jagged(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.nested.as_nested_tensor(parts, layout=torch.jagged)

    return tensordict_utils.get_tensordict(
        tensor_dict={
            "input_ids": jagged(ids),
            "position_ids": jagged([torch.arange(length) for length in lengths]),
            "loss_mask": jagged([(torch.arange(length) < length - 1).float() for length in lengths]),
        },
        non_tensor_dict={
            "use_remove_padding": False,
            "use_dynamic_bsz": True,
            "max_token_len_per_gpu": limit,
            "use_fused_kernels": fused,
            "temperature": 1.0,
            "global_batch_size": rows,
        },
    )


def loss(model_output: dict[str, torch.Tensor], data: Any, dp_group: Any = None) -> tuple[torch.Tensor, dict[str, Any]]:
    """Minus the mean log-prob."""
    summed = (model_output["log_probs"].values() * data["loss_mask"].values()).sum()
    return -summed / data["batch_num_tokens"], {}


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(options: argparse.Namespace) -> None:
    """One setting; what it took goes to the last line of standard output."""
    from verl.utils import tensordict_utils

    from verl_longshort.verl_plugin.platform.cpu import open_process_group

    torch.set_num_threads(1)
    open_process_group()
    setting = SETTINGS[options.setting]
    engine = build(options.model, **setting)
    rows, tokens, vocabulary = options.rows, options.tokens, engine.module.config.vocab_size
    found: dict[str, Any] = {"loaded": peak_gib()}
    data = batch(rows, tokens, vocabulary, setting["limit"], setting["fused"])
    tensordict_utils.assign_non_tensor(data, calculate_entropy=True)
    started = time.process_time()
    with engine.eval_mode():
        scored = engine.infer_batch(data)
    found |= {"scoring": peak_gib(), "scoring_s": time.process_time() - started}
    found["log_probs"] = [value for row in scored["model_output"]["log_probs"].unbind() for value in row[:-1].tolist()]
    data = batch(rows, tokens, vocabulary, setting["limit"], setting["fused"])
    started = time.process_time()
    with engine.train_mode():
        updated = engine.train_batch(data, loss_function=loss)
    found["gradient"] = float(updated["metrics"]["grad_norm"])
    found |= {"update": peak_gib(), "update_s": time.process_time() - started}
    print("\n" + json.dumps(found), flush=True)


def run(setting: str, options: argparse.Namespace) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, **{k: str(v) for k, v in ranks.items()}, "VERL_PLATFORM": "cpu"}
    command = [sys.executable, __file__, options.model, "--setting", setting]
    command += ["--rows", str(options.rows), "--tokens", str(options.tokens)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure an update's memory on a CPU; see the module's docstring.")
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=137, help="of a row, on average")
    parser.add_argument("--only", nargs="*", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--setting", choices=SETTINGS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.setting:
        measure(options)
        return
    columns = ("", "peak GiB: loaded", "scoring", "update", "cpu s: scoring", "update", "difference", "gradient norm")
    table = Table(*columns, title=f"{options.rows} rows of {options.tokens} tokens")
    first: list[float] = []
    for setting in options.only:
        found = run(setting, options)
        first = first or found["log_probs"]
        difference = max(abs(a - b) for a, b in zip(first, found["log_probs"], strict=True))
        numbers = [found[key] for key in ("loaded", "scoring", "update", "scoring_s", "update_s")]
        table.add_row(
            setting, *(f"{number:.1f}" for number in numbers), f"{difference:.0e}", f"{found['gradient']:.6f}"
        )
        print(setting, numbers, difference, found["gradient"], flush=True)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
