"""Records of one evaluation as numbers; `docs/evaluation.md` defines each."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np

from verl_longshort.base.files import Record
from verl_longshort.evaluation.grading import has_aha, majority, pass_at
from verl_longshort.evaluation.metrics import Interval, Samples, accuracy, mean
from verl_longshort.problems.benchmarks import benchmark_sort_key

Groups = Sequence[Sequence[Record]]
"""The records of one benchmark by problem."""
_SMALLEST_BUDGET = 16


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is measured on one benchmark. Means are over problems, of several benchmarks over these means;
    intervals are 95 %, over problems.
    """

    problems: int
    samples: int
    """Answers per problem; the most of any benchmark."""
    accuracy: Interval
    """avg@k: share of correct answers."""
    pass_at: dict[int, Interval]
    """pass@k for k = 2, 4, 8 ... and the number of samples."""
    majority: Interval | None
    """maj@k of all samples; None with one sample."""
    tokens: Interval
    """Generated tokens per trajectory, all roles together."""
    tokens_by_role: dict[str, float]
    tokens_right: Interval | None
    """Tokens of correct trajectories, over the problems with one; None when there is none."""
    tokens_wrong: Interval | None
    turns: float
    rethinks: float
    """How often the short role asked for another long thought, per trajectory."""
    rethink_rate: float
    """Share of trajectories in which it did."""
    aha_rate: float
    """Share of trajectories that stop to reconsider; `grading` defines it."""
    accuracy_at_budget: dict[int, float]
    """Share of trajectories that are correct and have at most so many tokens of all roles."""
    seconds: dict[str, float]
    """Wall time of a trajectory, median p50 and p95, while max_num_seqs of them were under way."""
    stop_reasons: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Summary(Figures):
    """One row of the table: the figures over all benchmarks, and of each."""

    name: str
    benchmarks: dict[str, Figures]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, **super().to_json()}


def summarise(name: str, records: Sequence[Record], *, timeout_s: float = 5.0) -> Summary:
    """The numbers of `records`; comparing two answers for maj@k takes `timeout_s` seconds at most.

    Raises ValueError when there are no records.
    """
    groups = by_benchmark(records)
    each = {benchmark: _figures([group], timeout_s) for benchmark, group in groups.items()}
    total = next(iter(each.values())) if len(each) == 1 else _figures(list(groups.values()), timeout_s)
    return Summary(name=name, benchmarks=each, **vars(total))


def by_benchmark(records: Sequence[Record]) -> dict[str, list[list[Record]]]:
    """The records of each benchmark by problem, in the order of the paper, the problems and the samples."""
    groups: dict[str, dict[int, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(records, key=lambda record: int(record["id"].rpartition("/")[2])):
        groups[record["benchmark"]][record["problem_index"]].append(record)
    return {
        name: [groups[name][index] for index in sorted(groups[name])] for name in sorted(groups, key=benchmark_sort_key)
    }


def total_tokens(record: Record) -> int:
    """Tokens of all roles."""
    return sum(record["tokens"].values())


def columns(groups: Groups) -> tuple[Samples, Samples]:
    """Correct answers (0 or 1) and tokens of one benchmark."""
    return _values(groups, lambda record: record["correct"]), _values(groups, total_tokens)


def _figures(benchmarks: Sequence[Groups], timeout_s: float) -> Figures:
    records = [record for groups in benchmarks for group in groups for record in group]
    samples = max(len(group) for groups in benchmarks for group in groups)

    def average(value: Callable[[Record], float]) -> float:
        means = ([np.mean(samples) for samples in _values(groups, value)] for groups in benchmarks)
        return float(np.mean([np.mean(problems) for problems in means]))

    def by_problem(value: Callable[[Sequence[Record]], float]) -> Interval:
        return mean(*([[value(group)] for group in groups] for groups in benchmarks))

    p50, p95 = np.percentile([record["seconds"] for record in records], [50, 95])
    roles = sorted({role for record in records for role in record["tokens"]})

    return Figures(
        problems=sum(map(len, benchmarks)),
        samples=samples,
        accuracy=accuracy(*(columns(groups)[0] for groups in benchmarks)),
        pass_at={k: by_problem(partial(_pass_at, k)) for k in _ks(samples)},
        majority=by_problem(partial(majority, timeout_s=timeout_s)) if samples > 1 else None,
        tokens=mean(*(columns(groups)[1] for groups in benchmarks)),
        tokens_by_role={role: average(lambda r, role=role: r["tokens"].get(role, 0)) for role in roles},  # type: ignore[misc]
        tokens_right=_tokens_where(benchmarks, correct=True),
        tokens_wrong=_tokens_where(benchmarks, correct=False),
        turns=average(lambda record: len(record["turns"])),
        rethinks=average(lambda record: record["rethinks"]),
        rethink_rate=average(lambda record: record["rethinks"] > 0),
        aha_rate=average(lambda record: has_aha(turn["text"] for turn in record["turns"])),
        accuracy_at_budget=_at_budgets(records, average),
        seconds={"p50": round(float(p50), 3), "p95": round(float(p95), 3)},
        stop_reasons=dict(Counter(record["stop_reason"] for record in records).most_common()),
    )


def _values(groups: Groups, value: Callable[[Record], float]) -> list[list[float]]:
    return [[float(value(record)) for record in group] for group in groups]


def _ks(samples: int) -> list[int]:
    powers = [2**n for n in range(1, samples.bit_length()) if 2**n < samples]
    return [*powers, samples] if samples > 1 else []


def _pass_at(k: int, group: Sequence[Record]) -> float:
    # A benchmark with fewer samples counts with all it has.
    return pass_at(min(k, len(group)), samples=len(group), right=sum(record["correct"] for record in group))


def _tokens_where(benchmarks: Sequence[Groups], *, correct: bool) -> Interval | None:
    chosen = (
        [[record for record in group if record["correct"] is correct] for group in groups] for groups in benchmarks
    )
    found = (_values([group for group in groups if group], total_tokens) for groups in chosen)
    known = [values for values in found if values]
    return mean(*known) if known else None


def _at_budgets(records: Sequence[Record], average: Callable[[Callable[[Record], float]], float]) -> dict[int, float]:
    budgets = [_SMALLEST_BUDGET]
    while budgets[-1] < max(map(total_tokens, records)):
        budgets.append(2 * budgets[-1])
    return {
        budget: average(lambda r, budget=budget: r["correct"] and total_tokens(r) <= budget)  # type: ignore[misc]
        for budget in budgets
    }


def _plain(value: Any) -> Any:
    if isinstance(value, (Interval, Figures)):
        return value.to_json()
    return {str(key): _plain(item) for key, item in value.items()} if isinstance(value, dict) else value
