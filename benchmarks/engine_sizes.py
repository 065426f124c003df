"""The transformers engine on a real model, by number of requests and length of prompt, on a CPU.

Every contender runs in a process of its own, and they take turns, so that other work on the machine meets all of them.
Counted are processor seconds of prompts and tokens together, the best of some rounds, the kernel's share of them, minor
page faults, and the peak of resident memory up to and with a case. Prompts are random tokens, sampling is at
temperature 1 without stop; `generate` and continuous batching give no log-probs of the whole distribution and test no
stop strings, the engine and vLLM do both. Costs are those of a contender's process and the processes that it started;
vLLM, where it is installed, is asked in eager mode and without prefix caching, like the others.

    python benchmarks/engine_sizes.py MODEL                          # a folder with a causal language model
    .venv-vllm/bin/python benchmarks/engine_sizes.py MODEL           # with vLLM among the contenders
    python benchmarks/engine_sizes.py MODEL --against CHECKOUT       # beside the engine of another checkout
    python benchmarks/engine_sizes.py MODEL --cases 8x60 --tokens 4  # smoke
"""

import argparse
import asyncio
import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ContinuousBatchingConfig,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from verl_longshort.engines.transformers_engine import TransformersEngine
from verl_longshort.engines.vllm import VLLM, VllmEngine

TIMEOUT_S = 600.0
ROOT = Path(__file__).resolve().parents[1]
Prompts = list[list[int]]


class Case(NamedTuple):
    """So many requests with prompts of so many tokens."""

    requests: int
    prompt: int

    @classmethod
    def parse(cls, text: str) -> "Case":
        requests, prompt = map(int, text.split("x"))
        return cls(requests, prompt)


class Cost(NamedTuple):
    """What a run took."""

    user_s: float
    kernel_s: float
    faults: int

    @property
    def cpu_s(self) -> float:
        return self.user_s + self.kernel_s


@contextmanager
def generate(model: PreTrainedModel, folder: str) -> Iterator[Callable[[Prompts, int], None]]:
    def run(prompts: Prompts, tokens: int) -> None:
        ids = torch.tensor(prompts)
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, max_new_tokens=tokens, min_new_tokens=tokens
        )

    yield run


@contextmanager
def continuous_batching(model: PreTrainedModel, folder: str) -> Iterator[Callable[[Prompts, int], None]]:
    manager = model.init_continuous_batching(
        GenerationConfig(do_sample=True, max_new_tokens=100, eos_token_id=-1, pad_token_id=0),
        ContinuousBatchingConfig(block_size=32, num_blocks=1200, max_batch_tokens=2048, return_logprobs=True),
    )
    manager.start()

    def run(prompts: Prompts, tokens: int) -> None:
        for index, prompt in enumerate(prompts):
            manager.add_request(prompt, request_id=str(index), max_new_tokens=tokens, eos_token_id=-1)
        for _ in prompts:
            made = manager.get_result(timeout=TIMEOUT_S)
            if made is None or made.error:
                raise RuntimeError(f"continuous batching gave up: {made and made.error}")

    try:
        yield run
    finally:
        manager.stop(block=True, timeout=TIMEOUT_S)
        with suppress(AttributeError):
            manager.destroy()


@contextmanager
def engine(model: PreTrainedModel, folder: str) -> Iterator[Callable[[Prompts, int], None]]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with TransformersEngine(model, tokenizer, max_num_seqs=32, eos_token_ids=[], kept_tokens=0) as served:
        yield lambda prompts, tokens: asyncio.run(ask(served, prompts, tokens))


@contextmanager
def vllm(model: PreTrainedModel, folder: str) -> Iterator[Callable[[Prompts, int], None]]:
    options = {
        "dtype": "float32",
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "max_model_len": 2048,
        "max_num_batched_tokens": 2048,
        "kv_cache_memory_bytes": 2**31,
    }
    with VllmEngine(folder, max_num_seqs=32, options=options) as served:
        yield lambda prompts, tokens: asyncio.run(ask(served, prompts, tokens))


async def ask(served: TransformersEngine | VllmEngine, prompts: Prompts, tokens: int) -> None:
    keys = {"max_tokens": tokens, "min_tokens": tokens, "ignore_eos": True, "logprobs": True, "stop": ["</think>"]}
    asked = (
        served.generate(request_id=str(index), prompt_ids=prompt, sampling={**keys, "seed": index})
        for index, prompt in enumerate(prompts)
    )
    await asyncio.gather(*asked)


CONTENDERS: dict[str, Callable[[PreTrainedModel, str], Any]] = {
    "generate": generate,
    "continuous batching": continuous_batching,
    "engine": engine,
    **({"vLLM": vllm} if VLLM.installed else {}),
}


class Usage(NamedTuple):
    """What a process and its descendants have used so far; the peak is a sum of peaks."""

    user_s: float
    kernel_s: float
    faults: int
    peak_kib: int

    @classmethod
    def now(cls) -> "Usage":
        me = psutil.Process()
        each = [cls._of(process) for process in (me, *me.children(recursive=True))]
        return cls(*map(sum, zip(*each, strict=True)))

    @classmethod
    def _of(cls, process: psutil.Process) -> "Usage":
        times = process.cpu_times()
        folder = Path("/proc", str(process.pid))
        # The fields after the name, which is in brackets: state is the first, minor faults the eighth (proc(5)).
        faults = int((folder / "stat").read_text().rpartition(")")[2].split()[7])
        peak = next(line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM"))
        return cls(times.user, times.system, faults, int(peak.split()[1]))


def serve(name: str, folder: str) -> None:
    """Run cases from standard input, one JSON list [requests, prompt, tokens] a line; costs go to standard output."""
    # vLLM's processes log to standard output.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(1)
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    with CONTENDERS[name](model, folder) as run:
        for number, line in enumerate(sys.stdin):
            requests, prompt, tokens = json.loads(line)
            # Others in every round: continuous batching would find the blocks of those before.
            draw = random.Random(number)
            prompts = [draw.choices(range(100, model.config.vocab_size), k=prompt) for _ in range(requests)]
            before = Usage.now()
            run(prompts, tokens)
            after = Usage.now()
            spent = [*(end - begin for begin, end in zip(before[:3], after[:3], strict=True)), after.peak_kib]
            print(json.dumps(spent), file=replies, flush=True)


class Contender:
    """A contender's process; as a context it ends with it, and is killed there when something failed."""

    def __init__(self, name: str, folder: str, checkout: Path) -> None:
        path = os.pathsep.join(map(str, (checkout, checkout / "reward")))
        self._process = subprocess.Popen(
            [sys.executable, __file__, folder, "--serve", name],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.peak_mib = 0

    def run(self, case: Case, tokens: int) -> Cost:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([*case, tokens]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contender ended with status {self._process.wait()}")
        user, kernel, faults, peak = json.loads(line)
        self.peak_mib = peak // 1024
        return Cost(user, kernel, faults)

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        assert self._process.stdin is not None
        if failed:
            self._process.kill()
        self._process.stdin.close()
        self._process.wait(TIMEOUT_S)


def compare(folder: str, cases: Sequence[Case], options: argparse.Namespace) -> None:
    against: Path | None = options.against
    given = {name: (name, ROOT) for name in options.only}
    if against:
        given[f"engine of {against}"] = ("engine", against)
    columns = ("case", "", "cpu s", "tokens / cpu s", "ratio", "kernel", "faults", "peak MiB")
    table = Table(*columns, title=f"{options.tokens} tokens a request; ratio: to the first line of a case")
    console = Console(width=130)
    with ExitStack() as stack:
        contenders = {
            title: stack.enter_context(Contender(name, folder, checkout)) for title, (name, checkout) in given.items()
        }
        for contender in contenders.values():
            contender.run(Case(2, 60), 2)
        for case in cases:
            costs: dict[str, Cost] = {}
            for _ in range(options.rounds):
                for title, contender in contenders.items():
                    cost = contender.run(case, options.tokens)
                    costs[title] = min(cost, costs.get(title, cost), key=lambda each: each.cpu_s)
                    console.print(f"{case.requests} x {case.prompt}: {title}: {cost}", style="dim")
            base = next(iter(costs.values())).cpu_s
            for title, cost in costs.items():
                table.add_row(
                    f"{case.requests} x {case.prompt}",
                    title,
                    f"{cost.cpu_s:.2f}",
                    f"{case.requests * options.tokens / cost.cpu_s:.0f}",
                    f"{base / cost.cpu_s:.2f}x",
                    f"{cost.kernel_s / cost.cpu_s:.0%}",
                    f"{cost.faults:,}",
                    f"{contenders[title].peak_mib:,}",
                )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare generation on a real model; see the module's docstring.")
    parser.add_argument("model")
    parser.add_argument("--cases", default="1x60,8x60,32x60,1x1000,8x1000,32x1000", help="requests x prompt tokens")
    parser.add_argument("--tokens", type=int, default=16, help="a request")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--serve", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.model)
    else:
        compare(options.model, [Case.parse(text) for text in options.cases.split(",")], options)


if __name__ == "__main__":
    main()
