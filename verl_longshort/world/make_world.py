"""Writes the data of a world.

| file | one record is |
|---|---|
| `train.parquet`, `val.parquet`, `test.parquet` | a problem, as a row of verl's RL data |
| `chains.jsonl` | another problem of the train split with its long chain of thought, and labelled thoughts |
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from verl_longshort.base.files import write_jsonl, write_parquet
from verl_longshort.world.prose import chain_of_thought, generate_word_problems
from verl_longshort.world.world import Split, Thought, generate_problems, long_cot


class AnyProblem(Protocol):
    """What the files need of a problem of any world."""

    @property
    def text(self) -> str: ...

    @property
    def answer(self) -> str: ...

    @property
    def hard_steps(self) -> tuple[int, ...]: ...

    @property
    def split(self) -> Split: ...


class Generate(Protocol):
    """Distinct problems of one split, the same for the same seed."""

    def __call__(self, *, seed: int, count: int, split: Split) -> Sequence[AnyProblem]: ...


@dataclass(frozen=True, kw_only=True)
class World:
    """Where problems and chains come from."""

    data_source: str
    """The name of the problems in verl's metrics."""
    generate: Generate
    chain: Callable[[Any, random.Random], list[Thought]]
    """The long chain of one of its problems."""
    separator: str
    """Stands between two thoughts of a chain."""


WORLDS: Mapping[str, World] = {
    "counter": World(
        data_source="longshort/world", generate=cast(Generate, generate_problems), chain=long_cot, separator=" "
    ),
    "prose": World(
        data_source="longshort/prose", generate=generate_word_problems, chain=chain_of_thought, separator="\n\n"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many problems each part has."""

    train: int = 4000
    val: int = 200
    test: int = 500
    chains: int = 1000


def make_world(output_dir: Path, seed: int, sizes: Sizes | None = None, *, kind: str = "counter") -> None:
    """Write all files of this module's table below `output_dir`; the same seed gives the same files.

    `kind` is a key of `WORLDS`. RL problems and chains have no problem in common.

    Raises:
        ValueError: a size is larger than the world.
    """
    world, sizes = WORLDS[kind], sizes or Sizes()
    problems = world.generate(seed=seed, count=sizes.train + sizes.chains, split=Split.TRAIN)
    parts = {
        Split.TRAIN: problems[: sizes.train],
        Split.VALIDATION: world.generate(seed=seed, count=sizes.val, split=Split.VALIDATION),
        Split.TEST: world.generate(seed=seed, count=sizes.test, split=Split.TEST),
    }
    for split, part in parts.items():
        rows = [
            {
                "data_source": world.data_source,
                "prompt": [{"role": "user", "content": problem.text}],
                "reward_model": {"style": "rule", "ground_truth": problem.answer},
                "extra_info": {"index": index, "split": str(problem.split), "hard_steps": len(problem.hard_steps)},
            }
            for index, problem in enumerate(part)
        ]
        write_parquet(output_dir / f"{split}.parquet", rows)
    rng = random.Random(seed)
    write_jsonl(output_dir / "chains.jsonl", (chain_record(problem, rng, world) for problem in problems[sizes.train :]))


def chain_record(problem: AnyProblem, rng: random.Random, world: World = WORLDS["counter"]) -> dict[str, Any]:
    """A problem with its long chain: `thoughts` joined by the world's separator are `chain`."""
    thoughts = world.chain(problem, rng)
    return {
        "problem": problem.text,
        "ground_truth": problem.answer,
        "chain": world.separator.join(thought.text for thought in thoughts),
        "thoughts": [asdict(thought) for thought in thoughts],
    }
