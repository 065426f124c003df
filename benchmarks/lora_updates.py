"""What an update costs one worker: all weights trained beside LoRA adapters, on the CPU, in one process each.

    python benchmarks/lora_updates.py MODEL [--ranks 0 8 32] [--rows 2] [--tokens 256] [--updates 3]

An update is what a pair's learner does in a step: log-probs of the reference (a model of its own, or with LoRA the same
one with its adapters off), log-probs, backward pass, optimizer. Then the weights are walked through as they are sent to
the engine. Memory is the process's peak; seconds are means without the first update.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

GIB = 1 << 30
FLOAT32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}


def engine(model: str, rank: int, *, forward_only: bool) -> Any:
    """verl's training engine as a pair's worker builds it on a CPU."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
    from verl.workers.engine import EngineRegistry

    made = EngineRegistry.new(
        "language_model",
        "fsdp2",
        model_config=HFModelConfig(
            path=model,
            use_remove_padding=False,
            enable_gradient_checkpointing=False,
            override_config={"attn_implementation": "sdpa"},
            lora_rank=rank,
            lora={"merge": True},
        ),
        engine_config=FSDPEngineConfig(
            strategy="fsdp2", forward_only=forward_only, use_torch_compile=False, mixed_precision=FLOAT32
        ),
        optimizer_config=FSDPOptimizerConfig(lr=1e-5, total_training_steps=10),
        checkpoint_config=CheckpointConfig(),
    )
    made.initialize()
    return made


def measure(model: str, rank: int, rows: int, tokens: int, updates: int) -> dict[str, float]:
    """One process's figures."""
    import torch

    from verl_longshort.verl_plugin.platform.cpu import open_process_group

    open_process_group()
    torch.manual_seed(0)
    actor = engine(model, rank, forward_only=False)
    reference = None if rank else engine(model, 0, forward_only=True)
    trained = sum(p.numel() for p in actor.module.parameters() if p.requires_grad)
    ids = torch.randint(0, actor.module.config.vocab_size, (rows, tokens))

    def logprobs(module: Any) -> torch.Tensor:
        logits = module(input_ids=ids, use_cache=False).logits[:, :-1]
        return -torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")

    seconds = []
    for _ in range(updates + 1):
        begin = time.monotonic()
        with torch.no_grad(), actor.disable_adapter() if rank else nullcontext():
            base = logprobs(actor.module if reference is None else reference.module)
        own = logprobs(actor.module)
        # GRPO's loss with low_var_kl has the gradient of such a sum
        (-own.mean() + 0.04 * (base - own).exp().mean()).backward()
        actor.optimizer_step()
        actor.optimizer_zero_grad()
        seconds.append(time.monotonic() - begin)
    learned = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.monotonic()
    sent = sum(value.nbytes for _, value in actor.get_per_tensor_param()[0])
    return {
        "rank": rank,
        "trained parameters": trained,
        "peak GiB, learning": learned * 1024 / GIB,
        "peak GiB, with sending": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,
        "seconds of an update": sum(seconds[1:]) / updates,
        "seconds of sending": time.monotonic() - begin,
        "sent GiB": sent / GIB,
    }


def main() -> None:
    """Print a line of JSON for each rank; 0 trains all weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--ranks", type=int, nargs="+", default=[0, 8, 32])
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--updates", type=int, default=3)
    options = parser.parse_args()
    if len(options.ranks) == 1:
        figures = measure(options.model, options.ranks[0], options.rows, options.tokens, options.updates)
        print(json.dumps(figures), flush=True)
        return
    sizes = [f"--{name}={getattr(options, name)}" for name in ("rows", "tokens", "updates")]
    for rank in options.ranks:
        # of its own: the peak of a process never falls
        command = [sys.executable, str(Path(__file__)), options.model, "--ranks", str(rank), *sizes]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
