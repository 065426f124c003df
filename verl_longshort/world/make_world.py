"""Writes the data of the miniature world.

| file | one record is |
|---|---|
| `train.parquet`, `val.parquet`, `test.parquet` | a problem, as a row of verl's RL data |
| `chains.jsonl` | another problem of the train split with its long chain of thought, and labelled thoughts |
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

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
    output_dir.mkdir(parents=True, exist_ok=True)
    problems = _problems(seed, sizes.train + sizes.chains, Split.TRAIN)
    _write_rl(output_dir, Split.TRAIN, problems[: sizes.train])
    _write_rl(output_dir, Split.VALIDATION, _problems(seed, sizes.val, Split.VALIDATION))
    _write_rl(output_dir, Split.TEST, _problems(seed, sizes.test, Split.TEST))
    rng = random.Random(seed)
    chains = (chain_record(problem, rng) for problem in problems[sizes.train :])
    _write_jsonl(output_dir / "chains.jsonl", chains)


def rl_row(problem: Problem, index: int) -> dict[str, Any]:
    """A problem as verl's RL data wants it."""
    return {
        "data_source": DATA_SOURCE,
        "prompt": [{"role": "user", "content": problem.text}],
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "extra_info": {"index": index, "split": str(problem.split), "hard_steps": len(problem.hard_steps)},
    }


def chain_record(problem: Problem, rng: random.Random) -> dict[str, Any]:
    """A problem with its long chain: `thoughts` joined by spaces are `chain`."""
    thoughts = long_cot(problem, rng)
    return {
        "problem": problem.text,
        "ground_truth": problem.answer,
        "chain": " ".join(thought.text for thought in thoughts),
        "thoughts": [asdict(thought) for thought in thoughts],
    }


def _problems(seed: int, count: int, split: Split) -> list[Problem]:
    return generate_problems(seed=seed, count=count, split=split)


def _write_rl(output_dir: Path, split: Split, problems: Sequence[Problem]) -> None:
    rows = [rl_row(problem, index) for index, problem in enumerate(problems)]
    pd.DataFrame(rows).to_parquet(output_dir / f"{split}.parquet")


def _write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
