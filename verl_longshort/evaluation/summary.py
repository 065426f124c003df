"""Records of one evaluation as numbers."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from verl_longshort.evaluation.metrics import Interval, accuracy, mean
from verl_longshort.inputs import Record


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One row of the table. Means are over problems; intervals are 95 %."""

    name: str
    problems: int
    samples: int
    """Answers per problem."""
    accuracy: Interval
    tokens: Interval
    """Generated tokens per trajectory, all roles together."""
    tokens_by_role: dict[str, float]
    turns: float
    rethink_rate: float
    """Share of trajectories in which the short role asked for another long thought."""
    stop_reasons: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "accuracy": self.accuracy.to_json(), "tokens": self.tokens.to_json()}


def summarise(name: str, records: Sequence[Record]) -> Summary:
    """The numbers of `records`, which are grouped by their problem. Raises ValueError when there are none."""
    groups = by_problem(records)
    roles = sorted({role for record in records for role in record["tokens"]})
    return Summary(
        name=name,
        problems=len(groups),
        samples=max(map(len, groups)) if groups else 0,
        accuracy=accuracy([[record["correct"] for record in group] for group in groups]),
        tokens=mean([[float(total_tokens(record)) for record in group] for group in groups]),
        tokens_by_role={role: _mean(groups, partial(_role_tokens, role)) for role in roles},
        turns=_mean(groups, lambda record: len(record["turns"])),
        rethink_rate=_mean(groups, lambda record: record["rethinks"] > 0),
        stop_reasons=dict(Counter(record["stop_reason"] for record in records).most_common()),
    )


def by_problem(records: Sequence[Record]) -> list[list[Record]]:
    """The records of each problem, in the order of the problems."""
    groups: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        groups[record["problem_index"]].append(record)
    return [groups[index] for index in sorted(groups)]


def total_tokens(record: Record) -> int:
    """Tokens of all roles."""
    return sum(record["tokens"].values())


def _role_tokens(role: str, record: Record) -> float:
    return float(record["tokens"][role])


def write_summary(path: Path, summary: Summary) -> None:
    """Write the summary as JSON, in one step."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(summary.to_json(), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _mean(groups: Sequence[Sequence[Record]], value: Callable[[Record], float]) -> float:
    return sum(sum(map(value, group)) / len(group) for group in groups) / len(groups)
