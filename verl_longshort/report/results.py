"""The section with the measured results: headline numbers and the table, each seed and their mean."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_longshort.evaluation.metrics import Interval
from verl_longshort.evaluation.summary import Summary
from verl_longshort.evaluation.table_text import Cells, details
from verl_longshort.report.evaluations import Evaluation
from verl_longshort.report.page import Section, fragment
from verl_longshort.report.run_dir import Run


@dataclass(frozen=True, kw_only=True)
class Line:
    """One evaluation of one run, as the table shows it."""

    run: str
    evaluation: Evaluation
    score: Interval | None
    base: Evaluation | None
    """What `score` is relative to."""
    is_chosen: bool
    """Whether validation chose this pair."""

    @property
    def is_base(self) -> bool:
        """Whether AES is relative to this line."""
        return self.base is self.evaluation

    @property
    def summary(self) -> Summary:
        """The evaluation's numbers."""
        return self.evaluation.summary

    @property
    def header(self) -> Mapping[str, Any]:
        """How the evaluation was made."""
        return self.evaluation.header

    @property
    def long_share(self) -> float | None:
        """Share of the tokens that the long role wrote, None for a model alone."""
        by_role = self.evaluation.summary.tokens_by_role
        total = sum(by_role.values())
        return by_role["long"] / total if "long" in by_role and total else None


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A number over the runs."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Spread | None":
        """Mean and range; None when a value is not known."""
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        return cls(mean=sum(known) / len(known), low=min(known), high=max(known))


@dataclass(frozen=True, kw_only=True)
class Group:
    """All runs' evaluations of one name."""

    name: str
    lines: Sequence[Line]

    @property
    def is_base(self) -> bool:
        """Whether AES is relative to it."""
        return any(line.is_base for line in self.lines)

    @property
    def is_chosen(self) -> bool:
        """Whether validation chose this pair in every run."""
        return all(line.is_chosen for line in self.lines)

    def spread(self, value: Callable[[Line], float | None]) -> Spread | None:
        """A number of the lines over the runs."""
        return Spread.of([value(line) for line in self.lines])

    @property
    def accuracy(self) -> Spread | None:
        """Share of right answers (0 … 1)."""
        return self.spread(lambda line: line.evaluation.summary.accuracy.value)

    @property
    def tokens(self) -> Spread | None:
        """Generated tokens per trajectory."""
        return self.spread(lambda line: line.evaluation.summary.tokens.value)

    @property
    def score(self) -> Spread | None:
        """AES."""
        return self.spread(lambda line: line.score.value if line.score else None)

    @property
    def turns(self) -> Spread | None:
        """Turns per trajectory."""
        return self.spread(lambda line: line.evaluation.summary.turns)

    @property
    def rethinks(self) -> Spread | None:
        """Share of trajectories that asked for another long thought."""
        return self.spread(lambda line: line.evaluation.summary.rethink_rate)


@dataclass(frozen=True, kw_only=True)
class DataTable:
    """The evaluations on one data set."""

    data: str
    groups: Sequence[Group]

    @property
    def base(self) -> str:
        """Name of what AES is relative to."""
        names = dict.fromkeys(line.base.name for g in self.groups for line in g.lines if line.base)
        return ", ".join(names) or "nothing"

    @property
    def details(self) -> list[tuple[str, Cells]]:
        """For each run all that was measured, by benchmark."""
        runs = dict.fromkeys(line.run for group in self.groups for line in group.lines)
        lines = {run: [x for group in self.groups for x in group.lines if x.run == run] for run in runs}
        return [(run, details(own)) for run, own in lines.items()]

    @property
    def headers(self) -> list[Mapping[str, Any]]:
        """How the evaluations were made."""
        return [line.evaluation.header for group in self.groups for line in group.lines]

    @property
    def problems(self) -> str:
        """How many problems and answers, in words."""
        sizes = {(header["problems"], header["samples"]) for header in self.headers}
        return " or ".join(
            f"{problems} problems, {'one answer' if samples == 1 else f'{samples} answers'} each"
            for problems, samples in sorted(sizes)
        )

    @property
    def seeds(self) -> str:
        """Seeds of the evaluations' draws and their temperatures, in words."""
        temperatures = sorted({float(header.get("temperature", 0)) for header in self.headers})
        seeds = sorted({int(header.get("seed", 0)) for header in self.headers})
        if temperatures == [0.0]:
            return "greedy answers"
        return f"temperature {_listed(temperatures)}, seed of the draws {_listed(seeds)}"


def tables(runs: Sequence[Run]) -> list[DataTable]:
    """One table per data set, the one with the most evaluations first."""
    counts = Counter(one.data for run in runs for one in run.evaluations)
    return [DataTable(data=data, groups=_groups(runs, data)) for data, _ in counts.most_common()]


def headline(runs: Sequence[Run]) -> Group | None:
    """The pair to speak of first: of each run the one that validation chose, else that of the most rounds."""
    groups = [group for table in tables(runs)[:1] for group in table.groups]
    pairs = [group for group in groups if not group.lines[0].evaluation.is_alone]
    chosen = [line for group in pairs for line in group.lines if line.is_chosen]
    if len(chosen) == len(runs):
        by_run = sorted(chosen, key=lambda line: [run.label for run in runs].index(line.run))
        return Group(name=", ".join(dict.fromkeys(line.evaluation.name for line in by_run)), lines=by_run)
    return pairs[-1] if pairs else None


def results_section(runs: Sequence[Run]) -> Section:
    """The tables of measured results."""
    body = fragment(
        "results.html.jinja",
        {
            "tables": tables(runs),
            "runs": runs,
            "choices": [(run.label, run.choice) for run in runs if run.choice],
        },
    )
    return Section(id="results", title="Results", body=body)


def _groups(runs: Sequence[Run], data: str) -> list[Group]:
    lines: dict[str, list[Line]] = {}
    for run in runs:
        for one in run.evaluations:
            if one.data == data:
                lines.setdefault(one.name, []).append(_line(run, one))
    return [Group(name=name, lines=found) for name, found in lines.items()]


def _line(run: Run, one: Evaluation) -> Line:
    return Line(
        run=run.label,
        evaluation=one,
        score=run.scores[one.file],
        base=run.bases.get(one.data),
        is_chosen=run.choice is not None and run.choice.label == one.name,
    )


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
