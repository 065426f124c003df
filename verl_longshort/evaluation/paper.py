"""The results that the paper published (arXiv 2505.11827, version 2, section 6), as data.

`published_results()` reads `paper_results.csv`: accuracy in per cent on five benchmarks, the mean length
and the accuracy-efficiency score as printed. `PublishedResult.aes` is that score recomputed from the row: it
agrees within 0.01 in all rows but `MISPRINTED`.

Lengths are most likely in characters, and there is one answer per problem without seeds: compare ratios
and scores, never lengths with our tokens.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from verl_longshort.evaluation.metrics import accuracy_efficiency_score

SOURCE = "arXiv 2505.11827v2"
BENCHMARKS = ("math500", "aime24", "aime25", "gpqa_diamond", "amc23")
"""The benchmarks: columns of the file."""
BASE_METHOD = "R1-Distill"
"""The row of each backbone that the score is relative to."""
MISPRINTED = ("Llama3.1-8B", "CoD")
"""Backbone and method of the row whose printed score (0.40) does not follow from its numbers (0.31)."""


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """One row of the paper's table."""

    backbone: str
    method: str
    """As in the paper; `pretrained` is the base model before any training, `L4S2` the pair after four rounds
    for long and two for short.
    """
    accuracies: dict[str, float]
    """Per cent, by name in `BENCHMARKS`."""
    mean_length: float
    published_aes: float
    aes: float
    """Recomputed from this row and its base row."""
    accuracy_change: float
    """Mean accuracy minus that of the base row, in percentage points."""
    length_ratio: float
    """Mean length as a share of the base row's."""

    @property
    def accuracy(self) -> float:
        """Mean over the benchmarks, in per cent."""
        return _mean(self.accuracies)

    @property
    def is_base(self) -> bool:
        """Whether the score of this backbone's rows is relative to this one."""
        return self.method == BASE_METHOD

    @property
    def is_misprinted(self) -> bool:
        """Whether the printed score does not follow from the row."""
        return (self.backbone, self.method) == MISPRINTED


@cache
def published_results() -> tuple[PublishedResult, ...]:
    """All rows, in the order of the paper."""
    table = (files("verl_longshort.evaluation") / "paper_results.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(table.splitlines()))
    bases = {row["backbone"]: row for row in rows if row["method"] == BASE_METHOD}
    return tuple(_result(row, bases[row["backbone"]]) for row in rows)


def published(backbone: str, method: str) -> PublishedResult | None:
    """One row, or None when the paper has none."""
    return next((r for r in published_results() if (r.backbone, r.method) == (backbone, method)), None)


def backbones() -> tuple[str, ...]:
    """The paper's backbones, in its order."""
    return tuple(dict.fromkeys(result.backbone for result in published_results()))


def _result(row: dict[str, str], base: dict[str, str]) -> PublishedResult:
    accuracies, base_accuracies = _accuracies(row), _accuracies(base)
    accuracy, base_accuracy = _mean(accuracies), _mean(base_accuracies)
    length, base_length = float(row["mean_length"]), float(base["mean_length"])
    return PublishedResult(
        backbone=row["backbone"],
        method=row["method"],
        accuracies=accuracies,
        mean_length=length,
        published_aes=float(row["published_aes"]),
        aes=accuracy_efficiency_score(accuracy, length, base_accuracy=base_accuracy, base_length=base_length),
        accuracy_change=accuracy - base_accuracy,
        length_ratio=length / base_length,
    )


def _accuracies(row: dict[str, str]) -> dict[str, float]:
    return {name: float(row[name]) for name in BENCHMARKS}


def _mean(accuracies: dict[str, float]) -> float:
    return sum(accuracies.values()) / len(accuracies)
