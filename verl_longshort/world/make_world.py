"""Writes the data of the miniature world.

| file | one record is |
|---|---|
| `train.parquet`, `val.parquet`, `test.parquet` | a problem, as a row of verl's RL data |
| `chains.jsonl` | another problem of the train split with its long chain of thought, and labelled thoughts |
"""

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verl_longshort.base.files import write_jsonl, write_parquet
from verl_longshort.world.world import Problem, Split, generate_problems, long_cot

DATA_SOURCE = "longshort/world"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many problems each part has."""

    train: int = 4000
    val: int = 200
    test: int = 500
    chains: int = 1000


def make_world(output_dir: Path, seed: int, sizes: Sizes | None = None) -> None:
    """Write all files of this module's table below `output_dir`; the same seed gives the same files.

    RL problems and chains have no problem in common.

    Raises:
        ValueError: a size is larger than the world.
    """
    sizes = sizes or Sizes()
    problems = generate_problems(seed=seed, count=sizes.train + sizes.chains, split=Split.TRAIN)
    parts = {
        Split.TRAIN: problems[: sizes.train],
        Split.VALIDATION: generate_problems(seed=seed, count=sizes.val, split=Split.VALIDATION),
        Split.TEST: generate_problems(seed=seed, count=sizes.test, split=Split.TEST),
    }
    for split, part in parts.items():
        rows = [
            {
                "data_source": DATA_SOURCE,
                "prompt": [{"role": "user", "content": problem.text}],
                "reward_model": {"style": "rule", "ground_truth": problem.answer},
                "extra_info": {"index": index, "split": str(problem.split), "hard_steps": len(problem.hard_steps)},
            }
            for index, problem in enumerate(part)
        ]
        write_parquet(output_dir / f"{split}.parquet", rows)
    rng = random.Random(seed)
    write_jsonl(output_dir / "chains.jsonl", (chain_record(problem, rng) for problem in problems[sizes.train :]))


def chain_record(problem: Problem, rng: random.Random) -> dict[str, Any]:
    """A problem with its long chain: `thoughts` joined by spaces are `chain`."""
    thoughts = long_cot(problem, rng)
    return {
        "problem": problem.text,
        "ground_truth": problem.answer,
        "chain": " ".join(thought.text for thought in thoughts),
        "thoughts": [asdict(thought) for thought in thoughts],
    }
