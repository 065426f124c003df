"""What the recipe at the paper's scale reads, small: models, files of problems, and a language model's replies.

Problems are sums in English; their chains are those of a reasoning model that checks itself. `respond` plays the
language model that cuts the chains and writes their short parts.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from fastapi import Response
from longshort_reward.protocol import DEFAULT_PROMPTS
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from helpers.benchmark_files import gpqa_row, write_rows
from helpers.llm_server import Body, completion
from helpers.tiny_tokenizers import CHAT_ML
from helpers.word_models import save_successors
from verl_longshort.problems.benchmarks import BENCHMARKS

_NAMES = ("Ana", "Boris", "Chidi", "Dora", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jun")
_THINGS = ("red marbles", "old stamps", "ripe plums", "brass keys", "paper boats", "sea shells", "grey cats")
_MOVES = (
    "{name} owns {a} {things} and finds {b} more by the river. What is the new total?",
    "In a box of {name} lie {a} {things}; then {b} others are added. Count all of them.",
    "Yesterday {name} bought {a} {things}, today another {b}. How many were bought in these two days?",
    "There were {a} {things} on a shelf until {name} put {b} next to them. Say how many stand there.",
    "{a} {things} belong to {name}, and {b} to a brother. How many do both have together?",
)
SAID = "So \\boxed{7}"
"""The only answer of `long_cot`; that of the first problem of AMC23, and of no other that is asked."""


@dataclass(frozen=True)
class Sum:
    """A problem, its answer and a chain that reaches it, of four steps."""

    problem: str
    answer: int
    steps: tuple[str, ...]

    @property
    def chain(self) -> str:
        return "\n\n".join(self.steps)


def sums(begin: int, end: int) -> list[Sum]:
    """The problems of these numbers, each with words of its own."""
    found = []
    for k in range(begin, end):
        a, b = 3 + k, 2 + k // 2
        words = {"name": _NAMES[k % 10], "things": _THINGS[k * 3 % 7], "a": a, "b": b}
        steps = (
            f"Okay, we start with {a} and get {b} more.",
            f"So the sum is {a} + {b} = {a + b}.",
            f"Wait, let me check: {a + b} - {b} = {a}, fine.",
            f"Thus the answer is \\boxed{{{a + b}}}.",
        )
        found.append(Sum(_MOVES[k // 10 % 5].format(**words), a + b, steps))
    return found


RL, CHAINS = sums(0, 12), sums(12, 24)


def write_files(folder: Path) -> None:
    """`problems.jsonl` (RL), `sources.jsonl` and `chains.jsonl` (cold start), and `benchmarks/`."""
    write_rows(folder / "problems.jsonl", [_solved(one) for one in RL])
    write_rows(folder / "sources.jsonl", [_solved(one) for one in CHAINS])
    answered = "<think>\n{chain}\n</think>\n\nIt is \\boxed{{{answer}}}."
    rows = [{"problem": one.problem, "response": answered.format(chain=one.chain, answer=one.answer)} for one in CHAINS]
    write_rows(folder / "chains.jsonl", rows)
    for number, (name, hub) in enumerate(BENCHMARKS.items()):
        if name == "gpqa_diamond":
            write_rows(folder / f"benchmarks/{name}.csv", [gpqa_row(k) for k in range(hub.problems)])
            continue
        # numbers that no random text ends in
        first = 7 if name == "amc23" else 7001
        rows = [_difference(first + 1000 * k, number) for k in range(hub.problems)]
        write_rows(folder / f"benchmarks/{name}.jsonl", rows)


def write_models(folder: Path) -> None:
    """`base`, which is random, and `long_cot`, which says SAID whatever it is asked, with tokenizers of their own."""
    torch.manual_seed(0)
    words = tokenizer(900)
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder / "base")
    words.save_pretrained(folder / "base")
    words = tokenizer(600)
    opening = words.encode("<|im_start|>assistant\n", add_special_tokens=False)[-1]
    said = [opening, *words.encode(SAID, add_special_tokens=False), words.eos_token_id]
    assert len(set(said)) == len(said), "each word decides the next one"
    save_successors(folder / "long_cot", words, dict(pairwise(said)))


def tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of these texts and the system prompts."""
    built = Tokenizer(BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    texts = [DEFAULT_PROMPTS.long, DEFAULT_PROMPTS.short, *(one.problem + one.chain for one in RL + CHAINS)]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    built.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=built,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_ML,
    )


async def respond(body: Body) -> Response:
    """One thought for each step; each gap is a sentence, and the last one has the answer."""
    task = body["messages"][-1]["content"]
    if "\nSTEPS\n" in task:
        count = len(re.findall(r"^\[\d+\] ", task.split("\nSTEPS\n")[1], flags=re.MULTILINE))
        return completion(json.dumps([{"start": k, "end": k, "kind": "step"} for k in range(1, count + 1)]))
    problem = task.split("\nPROBLEM\n")[1].split("\n\nSOLUTION\n")[0].strip()
    answer = next(one.answer for one in CHAINS if one.problem == problem)
    gaps = max(int(number) for number in re.findall(r"\[GAP (\d+):", task.split("\nSOLUTION\n")[1]))
    texts = [*["It adds up."] * (gaps - 1), f"So \\boxed{{{answer}}}."]
    return completion(json.dumps([{"gap": k, "text": text} for k, text in enumerate(texts, start=1)]))


def _solved(one: Sum) -> dict[str, str]:
    return {"problem": one.problem, "solution": f"{one.steps[1]} {one.steps[3]}"}


def _difference(answer: int, other: int) -> dict[str, str]:
    return {"problem": f"What is {answer + other} minus {other}?", "answer": str(answer)}


def arguments(folder: Path, url: str) -> Sequence[str]:
    """The recipe's keys for these inputs and for a machine of two cores."""
    return [
        f"output={folder}/out",
        "device=cpu",
        "gpu.count=1",
        f"model.base={folder}/base",
        f"model.long_cot={folder}/long_cot",
        f"llm.base_url={url}",
        f"data.problems={folder}/problems.jsonl",
        "data.val_problems=2",
        f"data.chain_problems={folder}/sources.jsonl",
        f"data.chain_count={len(CHAINS)}",
        f"data.chains={folder}/chains.jsonl",
        f"data.benchmark_dir={folder}/benchmarks",
        "weigh_samples=2",
        "weigh_tokens=16",
        "limits=[longshort.environment.max_turns=4,longshort.environment.long_turn_tokens=96,"
        "longshort.environment.short_turn_tokens=64,longshort.environment.token_budget=192]",
        "prompt_tokens=1024",
        "response_tokens=320",
        "sft.batch=2",
        "sft.epochs=20",
        "sft.lr=5e-3",
        "rl.batch=2",
        "rl.group=8",
        "rl.steps_per_round=1",
        "evaluation.limit=1",
        "evaluation.samples=2",
        "evaluation.single_tokens=48",
        "evaluation.base_tokens=32",
    ]
