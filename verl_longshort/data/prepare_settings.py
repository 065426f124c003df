"""The `longshort` blocks of `config/prepare_problems.yaml` and `config/prepare_chains.yaml`; each key is documented
there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from longshort_reward.settings import NonNegativeInt, PositiveInt, Remedy, Seconds, SettingError, Settings
from pydantic import BeforeValidator, Field, Strict, field_validator, model_validator
from typing_extensions import Self

from verl_longshort.base.files import ModelPath
from verl_longshort.llm.settings import LLMSettings
from verl_longshort.problems.benchmarks import BENCHMARKS, find_files
from verl_longshort.problems.sources import check_source, is_here


def _texts(value: Any) -> Any:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, Sequence) or not all(isinstance(item, str) and item for item in listed):
        raise SettingError("", value, "must be a text or a list of texts, such as [a,b]")
    return listed


def _flat(value: Any) -> Any:
    """Lists within a list are read as their items: a recipe writes [${data.held_out},more]."""
    if not isinstance(value, list):
        return value
    return [text for item in value for text in (item if isinstance(item, list) else [item])]


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
"""One text or a list of texts."""


class HeldOutSettings(Settings):
    """What both commands have in common: where problems come from, and which are kept apart."""

    held_out: Annotated[Texts, BeforeValidator(_flat)]
    """Benchmarks by name, and other sources."""
    benchmark_dir: str | None
    similarity: Annotated[
        float, Strict(), Field(gt=0, le=1), Remedy("must be above 0 and at most 1 (1: the same words)")
    ]
    seed: NonNegativeInt

    @property
    def readable(self) -> Self:
        """With those held-out problems only that can be read now, for a plan, which leaves the Hub alone."""
        local = self.benchmark_dir is not None
        kept = (name for name in self.held_out if (local if name in BENCHMARKS else is_here(name)))
        return self.model_copy(update={"held_out": tuple(kept)})

    @model_validator(mode="after")
    def _check_held_out(self) -> Self:
        benchmarks = [name for name in self.held_out if name in BENCHMARKS]
        if benchmarks:
            find_files(benchmarks, {}, self.benchmark_dir, [], None)
        for name in self.held_out:
            if name not in BENCHMARKS:
                check_source(name, key="longshort.held_out")
        return self


class TrainingProblemSettings(HeldOutSettings):
    """Everything that the problems for RL depend on."""

    source: Texts
    output_dir: Path
    data_source: str
    val_problems: PositiveInt
    tokenizer: ModelPath | None
    max_problem_tokens: PositiveInt
    limit: Annotated[Annotated[int, Strict(), Field(ge=2)] | None, Remedy("must be a whole number from 2 on")]

    @property
    def readable(self) -> Self:
        """Also without a tokenizer that is on the Hub."""
        local = self.tokenizer is not None and Path(self.tokenizer).expanduser().is_dir()
        return super().readable if local else super().readable.model_copy(update={"tokenizer": None})

    @field_validator("source")
    @classmethod
    def _check_sources(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for source in value:
            check_source(source, key="longshort.source")
        return value


class ChainSettings(HeldOutSettings):
    """Everything that the chains depend on."""

    source: str | None
    kinds: Texts
    problems: PositiveInt
    chains: str | None
    output: Path
    instruction: str
    answer_timeout_s: Seconds
    llm: LLMSettings | None
    """None where the chains are from a file."""

    @model_validator(mode="before")
    @classmethod
    def _without_unused_model(cls, block: Any) -> Any:
        if block.get("chains") is not None:
            return {**block, "llm": None}
        if block.get("source") is None:
            raise SettingError("source", None, "give a set of problems; null means those of the file longshort.chains")
        return block

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        for key in ("source", "chains"):
            if getattr(self, key) is not None:
                check_source(getattr(self, key), key=f"longshort.{key}")
        return self
