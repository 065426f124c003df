"""The `longshort` blocks of `config/prepare_problems.yaml` and `config/prepare_chains.yaml`, checked and
typed; each key is documented there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError

from verl_longshort.base.files import check_model
from verl_longshort.config.pair import check_keys
from verl_longshort.llm.settings import LLMSettings
from verl_longshort.problems.benchmarks import BENCHMARKS, find_sources
from verl_longshort.problems.sources import check_source

_PROBLEM_KEYS = (
    *("source", "output_dir", "data_source", "held_out", "benchmark_dir", "similarity", "val_problems"),
    *("tokenizer", "max_problem_tokens", "limit", "seed"),
)
_CHAIN_KEYS = (
    *("source", "kinds", "problems", "chains", "output", "held_out", "benchmark_dir", "similarity"),
    *("instruction", "seed", "answer_timeout_s", "llm"),
)


@dataclass(frozen=True, kw_only=True)
class ProblemSettings:
    """Everything that the problems for RL depend on."""

    source: tuple[str, ...]
    output_dir: Path
    data_source: str
    held_out: tuple[str, ...]
    benchmark_dir: str | None
    similarity: float
    val_problems: int
    tokenizer: str | None
    max_problem_tokens: int
    limit: int | None
    seed: int

    @classmethod
    def parse(cls, block: Mapping[str, Any]) -> "ProblemSettings":
        """Check a block of plain containers. Raises UserError naming the key that cannot be used."""
        check_keys(block, "longshort", _PROBLEM_KEYS)
        check_counts(block, {"val_problems": 1, "max_problem_tokens": 1, "seed": 0})
        if block["limit"] is not None:
            check_counts(block, {"limit": 2})
        if block["tokenizer"] is not None:
            check_model(block["tokenizer"], key="longshort.tokenizer")
        return cls(
            source=checked(block["source"], "longshort.source"),
            output_dir=Path(block["output_dir"]),
            held_out=held_out(block),
            similarity=similarity(block["similarity"]),
            data_source=str(block["data_source"]),
            tokenizer=block["tokenizer"],
            benchmark_dir=block["benchmark_dir"],
            **{key: block[key] for key in ("val_problems", "max_problem_tokens", "limit", "seed")},
        )


@dataclass(frozen=True, kw_only=True)
class ChainSettings:
    """Everything that the chains depend on."""

    source: str | None
    kinds: tuple[str, ...]
    problems: int
    chains: str | None
    output: Path
    held_out: tuple[str, ...]
    benchmark_dir: str | None
    similarity: float
    instruction: str
    seed: int
    answer_timeout_s: float
    llm: LLMSettings | None

    @classmethod
    def parse(cls, block: Mapping[str, Any]) -> "ChainSettings":
        """Check a block of plain containers. Raises UserError naming the key that cannot be used."""
        check_keys(block, "longshort", _CHAIN_KEYS)
        check_counts(block, {"problems": 1, "seed": 0})
        if not isinstance(block["answer_timeout_s"], (int, float)) or block["answer_timeout_s"] <= 0:
            raise UserError("longshort.answer_timeout_s", block["answer_timeout_s"], "must be above 0")
        written = block["chains"] is not None
        if block["source"] is None and not written:
            remedy = "give a set of problems; null means those of the file longshort.chains"
            raise UserError("longshort.source", None, remedy)
        for key in ("source", "chains"):
            if block[key] is not None:
                check_source(block[key], key=f"longshort.{key}")
        return cls(
            kinds=names(block["kinds"], "longshort.kinds"),
            output=Path(block["output"]),
            held_out=held_out(block),
            similarity=similarity(block["similarity"]),
            llm=None if written else LLMSettings.parse(block["llm"], "longshort.llm"),
            **{
                key: block[key]
                for key in (
                    *("source", "problems", "chains", "benchmark_dir"),
                    *("instruction", "seed", "answer_timeout_s"),
                )
            },
        )


def names(value: Any, key: str) -> tuple[str, ...]:
    """A text or a list of texts. Raises UserError."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, Sequence) or not all(isinstance(item, str) and item for item in listed):
        raise UserError(key, value, "must be a text or a list of texts, such as [a,b]")
    return tuple(listed)


def checked(value: Any, key: str) -> tuple[str, ...]:
    """Sources, as far as they can be checked without reading them. Raises UserError."""
    for source in names(value, key):
        check_source(source, key=key)
    return names(value, key)


def held_out(block: Mapping[str, Any]) -> tuple[str, ...]:
    """Benchmarks by name, and other sources. Raises UserError."""
    listed = names(block["held_out"], "longshort.held_out")
    benchmarks = [name for name in listed if name in BENCHMARKS]
    if benchmarks:
        find_sources(benchmarks, {}, block["benchmark_dir"], [], None)
    checked([name for name in listed if name not in BENCHMARKS], "longshort.held_out")
    return listed


def similarity(value: Any) -> float:
    """A share above 0. Raises UserError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise UserError("longshort.similarity", value, "must be above 0 and at most 1 (1: the same words)")
    return float(value)


def check_counts(block: Mapping[str, Any], least: Mapping[str, int]) -> None:
    """Refuse what is no whole number from the given least one on. Raises UserError."""
    for key, number in least.items():
        value = block[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < number:
            raise UserError(f"longshort.{key}", value, f"must be a whole number from {number} on")
