"""The measured results: headline numbers, the table with each seed and their mean, and the grid of the rounds.

The grid is of long round × short round: every pair that was measured, and which were not.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_longshort.evaluation.metrics import Interval
from verl_longshort.evaluation.summary import Summary
from verl_longshort.evaluation.table import Cells, details
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
        by_role = self.summary.tokens_by_role
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

    @property
    def is_alone(self) -> bool:
        """Whether one model answered, not a pair."""
        return self.lines[0].evaluation.is_alone

    @property
    def rounds(self) -> tuple[int, int] | None:
        """Rounds of long and of short that the pair has had; None for other names."""
        return self.lines[0].evaluation.rounds

    def spread(self, value: Callable[[Line], float | None]) -> Spread | None:
        """A number of the lines over the runs."""
        return Spread.of([value(line) for line in self.lines])

    @property
    def accuracy(self) -> Spread | None:
        """Share of correct answers (0 … 1)."""
        return self.spread(lambda line: line.summary.accuracy.value)

    @property
    def tokens(self) -> Spread | None:
        """Generated tokens per trajectory."""
        return self.spread(lambda line: line.summary.tokens.value)

    @property
    def score(self) -> Spread | None:
        """AES."""
        return self.spread(lambda line: line.score.value if line.score else None)

    @property
    def turns(self) -> Spread | None:
        """Turns per trajectory."""
        return self.spread(lambda line: line.summary.turns)

    @property
    def rethinks(self) -> Spread | None:
        """Share of trajectories that asked for another long thought."""
        return self.spread(lambda line: line.summary.rethink_rate)


@dataclass(frozen=True, kw_only=True)
class DataTable:
    """The evaluations on one data set."""

    data: str
    groups: Sequence[Group]

    @property
    def lines(self) -> list[Line]:
        """The lines of all groups."""
        return [line for group in self.groups for line in group.lines]

    @property
    def base(self) -> str:
        """Name of what AES is relative to."""
        return ", ".join(dict.fromkeys(line.base.name for line in self.lines if line.base)) or "nothing"

    @property
    def score_note(self) -> str:
        """What AES is relative to, or why there is none, in words."""
        bases = [line.base for line in self.lines if line.base]
        if not bases:
            return "no AES: none of the evaluations is its base"
        if all(line.score is None for line in self.lines):
            return f"no AES: {self.base}, its base, has no correct answer (another: --base)"
        apart = [line.evaluation.name for line in self.lines if line.score is None]
        lacking = f"; none for {', '.join(dict.fromkeys(apart))}: other problems or no correct answer" if apart else ""
        return f"AES: accuracy-efficiency score relative to {self.base}, 0 for itself{lacking}"

    @property
    def details(self) -> list[tuple[str, Cells]]:
        """For each run all that was measured, by benchmark."""
        by_run: dict[str, list[Summary]] = defaultdict(list)
        for line in self.lines:
            by_run[line.run].append(line.summary)
        return [(run, details(summaries)) for run, summaries in by_run.items()]

    @property
    def problems(self) -> str:
        """How many problems and answers, in words."""
        sizes = {(line.header["problems"], line.header["samples"]) for line in self.lines}
        return " or ".join(
            f"{problems} problems, {'one answer' if samples == 1 else f'{samples} answers'} each"
            for problems, samples in sorted(sizes)
        )

    @property
    def seeds(self) -> str:
        """Temperatures and seeds of the evaluations' sampling, in words."""
        temperatures = sorted({float(line.header.get("temperature", 0)) for line in self.lines})
        seeds = sorted({int(line.header.get("seed", 0)) for line in self.lines})
        if temperatures == [0.0]:
            return "greedy answers"
        listed = ", ".join(f"{temperature:g}" for temperature in temperatures)
        return f"temperature {listed}, sampling seed {', '.join(map(str, seeds))}"


def tables(runs: Sequence[Run]) -> list[DataTable]:
    """One table per data set, the one with the most evaluations first."""
    lines: dict[str, dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for one in run.evaluations:
            line = Line(
                run=run.label,
                evaluation=one,
                score=run.scores[one.file],
                base=run.bases.get(one.data),
                is_chosen=run.choice is not None and run.choice.label == one.name,
            )
            lines[one.data][one.name].append(line)
    counts = Counter(one.data for run in runs for one in run.evaluations)
    return [
        DataTable(data=data, groups=[Group(name=name, lines=own) for name, own in lines[data].items()])
        for data, _ in counts.most_common()
    ]


def headline(runs: Sequence[Run]) -> Group | None:
    """The pair of the headline: of each run the one that validation chose, else the one after the most rounds."""
    groups = [group for table in tables(runs)[:1] for group in table.groups]
    pairs = [group for group in groups if not group.is_alone]
    chosen = [line for group in pairs for line in group.lines if line.is_chosen]
    if len(chosen) == len(runs):
        by_run = sorted(chosen, key=lambda line: [run.label for run in runs].index(line.run))
        return Group(name=", ".join(dict.fromkeys(line.evaluation.name for line in by_run)), lines=by_run)
    return pairs[-1] if pairs else None


def results_section(runs: Sequence[Run]) -> Section:
    """The tables of measured results."""
    choices = [(run.label, run.choice) for run in runs if run.choice]
    body = fragment("results.html.jinja", {"tables": tables(runs), "runs": runs, "choices": choices})
    return Section(id="results", title="Results", body=body)


def grid_section(runs: Sequence[Run]) -> Section | None:
    """The grid of the first data set; None when no pair was measured."""
    table = next(iter(tables(runs)), None)
    groups = {group.rounds: group for group in (table.groups if table else ()) if group.rounds is not None}
    if table is None or not groups:
        return None
    scores = {place: group.score.mean for place, group in groups.items() if group.score is not None}
    low, high = min(scores.values(), default=0.0), max(scores.values(), default=0.0)

    def cell(place: tuple[int, int]) -> dict[str, Any]:
        score = scores.get(place)
        # From the worst score (0) to the best (1) of the grid.
        level = (score - low) / (high - low) if score is not None and high > low else 0.0
        return {"group": groups.get(place), "level": level}

    longs, shorts = (range(max(place) + 1) for place in zip(*groups, strict=True))
    context = {
        "shorts": shorts,
        "rows": [(long, [cell((long, short)) for short in shorts]) for long in longs],
        "scored": bool(scores),
        "measured": len(groups),
        "total": len(longs) * len(shorts),
        "note": table.score_note if not scores else f"Large: AES relative to {table.base}",
        "runs": len(runs),
    }
    return Section(id="rounds", title="Long round × short round", body=fragment("grid.html.jinja", context))
