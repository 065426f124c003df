"""Time of `longshort weigh` against one request per rollout, on the same engine.

Three ways to the same rollouts from every prefix of some chains: one request after the other, as a plain
script would; all requests at once, each with its own prompt; and `weigh` itself, which also computes the
tokens that the prefixes of a chain share once only. An untrained model on one CPU thread (or a GPU, if there
is one); its answers run to their token limit. The wider the model and the longer the chains, the more sharing
saves. With `--engine vllm` the seconds are of the clock, since vLLM computes in processes of its own; it shares
prefixes in blocks, and has its prefix cache off for the two simpler ways.

    python benchmarks/weigh.py                                             # the miniature world
    python benchmarks/weigh.py --hidden 256 --thoughts 16 --tokens 50 --chains 1 --rounds 1
    python benchmarks/weigh.py --engine vllm --hidden 256 --thoughts 16 --tokens 50 --chains 2 --rounds 1
    python benchmarks/weigh.py --chains 1 --samples 2 --rounds 1           # smoke
"""

import argparse
import asyncio
import random
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from verl_longshort.base.concurrency import PrioritySemaphore
from verl_longshort.data.records import Chunked
from verl_longshort.data.rollouts import Prober
from verl_longshort.data.weigh import Weigher, WeighSettings
from verl_longshort.engines.transformers import TRANSFORMERS
from verl_longshort.engines.transformers_engine import TransformersEngine
from verl_longshort.engines.vllm import VLLM, VllmEngine
from verl_longshort.stages.weigh import WeighStage
from verl_longshort.world.tiny_tokenizer import VOCABULARY, build_tokenizer

WORDS = [word for word in VOCABULARY if word.isalpha()]


def make_chains(count: int, thoughts: int, tokens: int) -> list[Chunked]:
    rng = random.Random(0)
    chains = []
    for index in range(count):
        texts = [" ".join(rng.choices(WORDS, k=tokens)) for _ in range(thoughts)]
        record = {
            "id": str(index),
            "problem": f"start {index % 10} ; a 3 ?",
            "ground_truth": "4",
            "chain": " ".join(texts),
            "separator": " ",
            "thoughts": [{"text": text, "kind": ""} for text in texts],
        }
        chains.append(Chunked.model_validate(record))
    return chains


class Contest:
    """The same rollouts, asked for in three ways."""

    def __init__(self, options: argparse.Namespace, folder: str) -> None:
        self._chains = make_chains(options.chains, options.thoughts, options.tokens)
        self._samples = options.samples
        self._capacity = options.max_num_seqs
        self._engine = options.engine
        self._tokenizer = build_tokenizer()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = _model(options.hidden).to(device).eval()
        self._folder = folder
        self._model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)
        self._settings = _settings(options, folder)
        self.contenders: dict[str, Callable[[], float]] = {
            "one request after the other": lambda: self._run(self._one_by_one, shared=False),
            "one request per rollout, at once": lambda: self._run(self._at_once, shared=False),
            "weigh": lambda: self._run(self._weigh, shared=True),
        }

    def measure(self, rounds: int) -> dict[str, float]:
        """Best seconds of each over interleaved rounds; of the engine `transformers` on a CPU, of processor time."""
        best = dict.fromkeys(self.contenders, float("inf"))
        for name, run in [*self.contenders.items()] * rounds:
            best[name] = min(best[name], run())
        return best

    def _run(self, work: Callable[[Prober], Any], *, shared: bool) -> float:
        """The seconds of the work; opening the engine does not count."""
        joining = self._settings.joining
        assert joining != "auto", "the benchmark's settings name the words"
        here = self._engine == TRANSFORMERS.name and self._model.device.type == "cpu"
        clock = time.process_time if here else time.perf_counter
        with self._opened(shared=shared) as engine:
            prober = Prober(
                tokenizer=self._tokenizer,
                generate=engine.generate,
                queue=PrioritySemaphore(2 * self._capacity),
                answer_prompt=joining,
                system_prompt="",
                sampling=self._settings.sampling,
                seed=0,
                answer_timeout_s=5,
            )
            started = clock()
            asyncio.run(work(prober))
            return clock() - started

    def _opened(self, *, shared: bool) -> TransformersEngine | VllmEngine:
        if self._engine == VLLM.name:
            # one engine beside nothing else: on a CPU, its KV cache has a size of its own
            own: dict[str, Any] = {"enable_prefix_caching": shared, "enforce_eager": True}
            if self._model.device.type == "cpu":
                own |= {"dtype": "float32", "kv_cache_memory_bytes": 2**30}
            return VllmEngine(self._folder, max_num_seqs=self._capacity, options=own)
        return TransformersEngine(
            self._model,
            self._tokenizer,
            max_num_seqs=self._capacity,
            eos_token_ids=[],
            # kept sequences are of no use to those who share nothing
            kept_tokens=65_536 if shared else 0,
            shared_prefixes=shared,
        )

    async def _one_by_one(self, prober: Prober) -> None:
        for chain in self._chains:
            for prefix, context in enumerate(prober.contexts(chain)):
                for number in range(self._samples):
                    await prober.sample(0, chain, prefix, context, range(number, number + 1))

    async def _at_once(self, prober: Prober) -> None:
        await asyncio.gather(
            *(
                prober.sample(rank, chain, prefix, context, range(self._samples))
                for rank, chain in enumerate(self._chains)
                for prefix, context in enumerate(prober.contexts(chain))
            )
        )

    async def _weigh(self, prober: Prober) -> None:
        weigher = Weigher(settings=self._settings, prober=prober, counter=self._tokenizer, room=2000)
        await asyncio.gather(*(weigher.weigh(rank, chain) for rank, chain in enumerate(self._chains)))


def _model(hidden: int) -> LlamaForCausalLM:
    """Heads of 32 and three layers, as the model of the miniature world has them at 64."""
    torch.manual_seed(0)
    heads = hidden // 32
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=3,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=2048,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def _settings(options: argparse.Namespace, folder: str) -> WeighSettings:
    overrides = {
        **{"input": "none", "output": "none", "model": folder},
        **{"samples": options.samples, "max_tokens": options.answer_tokens},
    }
    return WeighStage().settings(overrides=[f"longshort.{key}={value}" for key, value in overrides.items()])


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare ways to weigh thoughts; see the module's docstring.")
    parser.add_argument("--chains", type=int, default=6)
    parser.add_argument("--thoughts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=20, help="of a thought")
    parser.add_argument("--hidden", type=int, default=64, help="width of the model, a multiple of 32")
    parser.add_argument("--answer-tokens", type=int, default=20)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max-num-seqs", type=int, default=64)
    parser.add_argument("--engine", choices=(TRANSFORMERS.name, VLLM.name), default=TRANSFORMERS.name)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    with TemporaryDirectory() as folder:
        seconds = Contest(options, folder).measure(options.rounds)
    rollouts = options.chains * (options.thoughts + 1) * options.samples
    chain_tokens = options.thoughts * options.tokens
    title = f"{rollouts} rollouts from prefixes of up to {chain_tokens} tokens"
    table = Table("", "seconds", "rollouts/s", "weigh takes", title=title)
    for name, taken in seconds.items():
        table.add_row(name, f"{taken:.2f}", f"{rollouts / taken:.0f}", f"{seconds['weigh'] / taken:.2f}x")
    Console().print(table)


if __name__ == "__main__":
    main()
