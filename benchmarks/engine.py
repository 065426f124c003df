"""Speed of generation over two turns: padded `generate`, transformers' continuous batching, our engine.

Every request has its own number of tokens per turn, as turns of a trajectory do; the second turn goes on from
the first with some tokens of the partner. Only asked-for tokens count: a padded batch runs until its longest
row is done. The model is the miniature world's, untrained, on one CPU thread (or a GPU, if there is one).

    python benchmarks/engine.py                        # a minute or two
    python benchmarks/engine.py --requests 8 --rounds 1    # smoke
"""

import argparse
import asyncio
import copy
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from longshort_reward.protocol import STOP_STRINGS, Role
from rich.console import Console
from rich.table import Table
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from verl_longshort.engines.transformers_engine import TransformersEngine
from verl_longshort.world.tiny_model import build_model
from verl_longshort.world.tiny_tokenizer import build_tokenizer

TURNS = 2
PARTNER_TOKENS = 12
TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt and how many tokens each turn generates."""

    prompt: list[int]
    lengths: list[int]


@dataclass(frozen=True, kw_only=True)
class Load:
    """What every contender has to do."""

    model: PreTrainedModel
    requests: list[Request]
    max_num_seqs: int

    @property
    def tokens(self) -> int:
        return sum(sum(request.lengths) for request in self.requests)


def make_load(count: int, prompt_tokens: int, max_num_seqs: int) -> Load:
    draw = random.Random(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(build_tokenizer(), seed=0).to(device).eval()
    model.set_attn_implementation("sdpa")
    words = range(8, model.config.vocab_size)
    requests = [
        Request(
            prompt=draw.choices(words, k=draw.randint(prompt_tokens // 2, prompt_tokens)),
            lengths=[draw.randint(20, 100) for _ in range(TURNS)],
        )
        for _ in range(count)
    ]
    return Load(model=model, requests=requests, max_num_seqs=max_num_seqs)


@contextmanager
def padded_generate(load: Load) -> Iterator[Callable[[], None]]:
    """All requests of a turn in padded batches; the next turn starts when the last one is done."""
    yield lambda: _generate_turns(load)


def _generate_turns(load: Load) -> None:
    contexts = [request.prompt for request in load.requests]
    for turn in range(TURNS):
        for start in range(0, len(contexts), load.max_num_seqs):
            batch = slice(start, start + load.max_num_seqs)
            lengths = [request.lengths[turn] for request in load.requests[batch]]
            contexts[batch] = _generate(load.model, contexts[batch], lengths)


def _generate(model: PreTrainedModel, contexts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    width = max(map(len, contexts))
    ids = torch.tensor([[0] * (width - len(c)) + c for c in contexts], device=model.device)
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=model.device)
    tokens = model.generate(
        ids,
        attention_mask=mask,
        do_sample=True,
        max_new_tokens=max(lengths),
        min_new_tokens=max(lengths),
        eos_token_id=1,
        pad_token_id=0,
    )
    made = tokens[:, width:].tolist()
    return [
        context + row[:length] + [9] * PARTNER_TOKENS
        for context, row, length in zip(contexts, made, lengths, strict=True)
    ]


@contextmanager
def continuous_batching(load: Load) -> Iterator[Callable[[], None]]:
    """transformers' own manager; finished rows start their next turn at once and share cached blocks."""
    # a model of its own: the manager changes the attention of the one it is given
    manager = copy.deepcopy(load.model).init_continuous_batching(
        GenerationConfig(do_sample=True, max_new_tokens=100, eos_token_id=-1, pad_token_id=0),
        ContinuousBatchingConfig(block_size=32, num_blocks=4096, max_batch_tokens=2048, return_logprobs=True),
    )
    manager.start()
    try:
        yield lambda: _serve(manager, load)
    finally:
        manager.stop(block=True, timeout=TIMEOUT_S)
        manager.destroy()


def _serve(manager: Any, load: Load) -> None:
    def ask(context: list[int], index: int, turn: int) -> None:
        length = load.requests[index].lengths[turn]
        manager.add_request(context, request_id=f"{index}/{turn}", max_new_tokens=length, eos_token_id=-1)

    for index, request in enumerate(load.requests):
        ask(request.prompt, index, 0)
    for _ in range(len(load.requests) * TURNS):
        made = manager.get_result(timeout=TIMEOUT_S)
        if made is None or made.error:
            raise RuntimeError(f"continuous batching gave up: {made and made.error}")
        index, turn = (int(part) for part in made.request_id.split("/"))
        if turn + 1 < TURNS:
            ask([*made.prompt_ids, *made.generated_tokens, *[9] * PARTNER_TOKENS], index, turn + 1)


def our_engine(kept_tokens: int) -> "Contender":
    """Our engine with log-probs and stop strings, as a trajectory asks for them."""

    @contextmanager
    def contender(load: Load) -> Iterator[Callable[[], None]]:
        with TransformersEngine(
            load.model,
            build_tokenizer(),
            max_num_seqs=load.max_num_seqs,
            eos_token_ids=[],
            kept_tokens=kept_tokens,
        ) as engine:
            yield lambda: asyncio.run(_all_turns(engine, load))

    return contender


async def _all_turns(engine: TransformersEngine, load: Load) -> None:
    async def turns(index: int, request: Request) -> None:
        context = request.prompt
        for length in request.lengths:
            sampling = {
                "max_tokens": length,
                "min_tokens": length,
                "logprobs": True,
                "seed": index,
                "stop": list(STOP_STRINGS[Role.SHORT]),
            }
            made = await engine.generate(request_id=str(index), prompt_ids=context, sampling=sampling)
            context = [*context, *made.token_ids, *[9] * PARTNER_TOKENS]

    await asyncio.gather(*(turns(i, request) for i, request in enumerate(load.requests)))


Contender = Callable[[Load], AbstractContextManager[Callable[[], None]]]

CONTENDERS: dict[str, Contender] = {
    "padded generate": padded_generate,
    "transformers continuous batching": continuous_batching,
    "engine, no kept KV": our_engine(0),
    "engine": our_engine(65_536),
}


def measure(load: Load, rounds: int) -> dict[str, float]:
    """Best seconds of each contender over interleaved rounds, after one round to warm up.

    On a CPU, seconds of processor time: other work on the machine then matters little.
    """
    clock = time.process_time if load.model.device.type == "cpu" else time.perf_counter
    best = dict.fromkeys(CONTENDERS, float("inf"))
    with ExitStack() as stack:
        runs = {name: stack.enter_context(contender(load)) for name, contender in CONTENDERS.items()}
        for run in runs.values():
            run()
        for name, run in [*runs.items()] * rounds:
            started = clock()
            run()
            best[name] = min(best[name], clock() - started)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare generation speed; see the module's docstring.")
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--prompt-tokens", type=int, default=40, help="of the longest prompt")
    parser.add_argument("--max-num-seqs", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    load = make_load(options.requests, options.prompt_tokens, options.max_num_seqs)
    seconds = measure(load, options.rounds)
    table = Table("", "seconds", "tokens/s", "speed", title=f"{load.tokens} tokens, {TURNS} turns")
    base = seconds["padded generate"]
    for name, taken in seconds.items():
        table.add_row(name, f"{taken:.2f}", f"{load.tokens / taken:.0f}", f"{base / taken:.2f}x")
    Console().print(table)


if __name__ == "__main__":
    main()
