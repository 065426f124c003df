"""What other methods for shorter reasoning published, as data; nothing of it was measured here.

`other_results()` reads `other_methods.yaml`: accuracy and tokens on each benchmark, under the protocol of the source
that printed them, with the accuracy-efficiency score (AES) computed from the row and its source's own base row. A
score is over the benchmarks that its source has, so compare rows of one source; between sources, protocols and
benchmarks differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Annotated, Any

from annotated_types import Len
from longshort_reward.settings import SettingError, Settings
from omegaconf import OmegaConf
from pydantic import AfterValidator, model_validator
from typing_extensions import Self

from verl_longshort.evaluation.metrics import accuracy_efficiency_score
from verl_longshort.evaluation.paper import BENCHMARKS

FILE = "other_methods.yaml"
BASE = "base"
"""What the rows of the base models are called."""


def _known(name: str) -> str:
    if name not in BENCHMARKS:
        raise ValueError(f"must be one of {', '.join(BENCHMARKS)}")
    return name


def _printed(pair: tuple[float, float]) -> tuple[float, float]:
    accuracy, tokens = pair
    if not (0 < accuracy < 100 and tokens > 0):
        raise ValueError("must be an accuracy in per cent and a number of tokens")
    return pair


_Row = tuple[Annotated[tuple[float, float], AfterValidator(_printed)], ...]


class Protocol(Settings):
    """How a source evaluated, in its own words; None where what was read does not say it."""

    sampling: str | None
    samples: str | None
    """Answers per problem."""
    token_limit: str | None

    def __str__(self) -> str:
        """One phrase for a table's caption."""
        said = {"sampling": self.sampling, "answers per problem": self.samples, "most tokens": self.token_limit}
        return "; ".join(f"{name}: {value or 'not known'}" for name, value in said.items())


class Model(Settings):
    """What a source has about one base model; rows are [accuracy in per cent, mean tokens] by benchmark."""

    base_model: str
    base: _Row
    methods: Mapping[str, _Row]


class Source(Settings):
    """One table of one publication."""

    arxiv: str
    title: str
    table: str
    seen: str
    """Where the figures were read."""
    protocol: Protocol
    note: str
    """Which benchmarks the source calls otherwise, and whose models its rows are."""
    benchmarks: Annotated[tuple[Annotated[str, AfterValidator(_known)], ...], Len(1)]
    models: Annotated[tuple[Model, ...], Len(1)]

    @model_validator(mode="after")
    def _rows_are_whole(self) -> Self:
        for number, model in enumerate(self.models):
            for name, row in {BASE: model.base, **model.methods}.items():
                if len(row) != len(self.benchmarks):
                    key = f"models[{number}].{name}"
                    raise SettingError(key, row, f"must hold a pair for each of {', '.join(self.benchmarks)}")
        return self


class _Sources(Settings):
    sources: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True)
class OtherResult:
    """One row of a source."""

    source: Source
    base_model: str
    method: str
    """As in the source; `base` is its own row of the base model."""
    accuracies: Mapping[str, float]
    """Per cent, by benchmark."""
    tokens: Mapping[str, float]
    """Mean tokens of an answer, by benchmark."""
    aes: float
    """Computed here, from the means over this row's benchmarks, against the base row of source and model."""

    @property
    def accuracy(self) -> float:
        """Mean over the benchmarks of the source, in per cent."""
        return fmean(self.accuracies.values())

    @property
    def mean_tokens(self) -> float:
        """Mean over the benchmarks of the source."""
        return fmean(self.tokens.values())

    @property
    def is_base(self) -> bool:
        """Whether the scores of this model's rows are relative to this one."""
        return self.method == BASE

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `published` says that it was not measured here."""
        source = {name: getattr(self.source, name) for name in ("arxiv", "title", "table", "seen", "note")}
        return {
            "published": True,
            "source": {**source, "protocol": self.source.protocol.model_dump()},
            "base_model": self.base_model,
            "method": self.method,
            "benchmarks": {
                name: {"accuracy": self.accuracies[name], "tokens": self.tokens[name]} for name in self.accuracies
            },
            "accuracy": self.accuracy,
            "tokens": self.mean_tokens,
            "aes": self.aes,
        }


def parse_sources(block: Any) -> tuple[Source, ...]:
    """The sources of a block of plain containers such as the file holds. Raises UserError for one that is not whole."""
    return _Sources.parse(block, FILE).sources


@cache
def sources() -> tuple[Source, ...]:
    """The sources of the file, in its order."""
    text = (files("verl_longshort.evaluation") / FILE).read_text(encoding="utf-8")
    return parse_sources(OmegaConf.to_container(OmegaConf.create(text)))


def results_of(source: Source) -> tuple[OtherResult, ...]:
    """The rows of a source, each model's base first."""
    return tuple(
        _result(source, model, name, row)
        for model in source.models
        for name, row in {BASE: model.base, **model.methods}.items()
    )


def other_results() -> tuple[OtherResult, ...]:
    """All rows of all sources."""
    return tuple(result for source in sources() for result in results_of(source))


def _result(source: Source, model: Model, method: str, row: Sequence[tuple[float, float]]) -> OtherResult:
    accuracies, tokens = zip(*row, strict=True)
    base_accuracies, base_tokens = zip(*model.base, strict=True)
    return OtherResult(
        source=source,
        base_model=model.base_model,
        method=method,
        accuracies=dict(zip(source.benchmarks, accuracies, strict=True)),
        tokens=dict(zip(source.benchmarks, tokens, strict=True)),
        aes=accuracy_efficiency_score(
            fmean(accuracies), fmean(tokens), base_accuracy=fmean(base_accuracies), base_length=fmean(base_tokens)
        ),
    )
