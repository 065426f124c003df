"""Trajectories as data for the viewer in the page: a seeded sample, small, with the terms of the reward.

The sample is of problems, not of single trajectories: all answers of all evaluations to a problem are in it
or none, so that they can be compared.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from longshort_reward import Outcome, all_terms

from verl_longshort.base.files import Record
from verl_longshort.report.evaluations import Evaluation
from verl_longshort.report.page import Section, fragment, json_block
from verl_longshort.report.run_dir import Run

DATA_ID = "trajectory-data"
Key = tuple[str, int]
"""A problem: its benchmark and its place there."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the viewer shows, as JSON values, and how much of everything that is."""

    data: Mapping[str, Any]
    shown: int
    total: int


def trajectories_section(runs: Sequence[Run], *, limit: int, seed: int, first: str | None) -> Section:
    """The viewer with at most `limit` trajectories, or with all answers to one problem of each data set when
    that is more; `seed` decides which. It opens with the evaluation named `first`.
    """
    sample = sample_trajectories(runs, limit=limit, seed=seed)
    names = [one.name for run in runs for one in run.evaluations]
    context = {
        "sample": sample,
        "source": DATA_ID,
        "what": "trajectories",
        "selection": f"all answers to a random sample of problems, seed {seed}",
        "none": "No trajectories: this run has no evaluation.",
        "more": "",
        "by": "evaluation",
        "order": "as evaluated",
        "evaluations": sample.data["evaluations"],
        "stops": sample.data["stops"],
        "turns": sorted({len(row["turns"]) for row in sample.data["rows"]}),
        "data": json_block(DATA_ID, {**sample.data, "first": names.index(first) if first else None}),
    }
    return Section(id="trajectories", title="Trajectories", body=fragment("viewer.html.jinja", context))


def sample_trajectories(runs: Sequence[Run], *, limit: int, seed: int) -> Sample:
    """At most `limit` trajectories (see `trajectories_section`), in the order of table and problems."""
    evaluations = [(run, one) for run in runs for one in run.evaluations]
    sets = defaultdict(list)
    for run, one in evaluations:
        sets[run.label, one.data].append(one)
    kept = {place: _kept_problems(members, limit // len(sets), seed) for place, members in sets.items()}
    problems: dict[str, int] = {}
    rows = [
        _row(number, record, terms, problems)
        for number, (run, one) in enumerate(evaluations)
        for record, terms in _with_terms(one, kept[run.label, one.data])
    ]
    data = {
        "evaluations": [_title(run, one, several=len(runs) > 1) for run, one in evaluations],
        "problems": list(problems),
        "stops": sorted({row["stop"] for row in rows}),
        "rows": rows,
    }
    return Sample(data=data, shown=len(rows), total=sum(len(one.records) for _, one in evaluations))


def _kept_problems(evaluations: Sequence[Evaluation], limit: int, seed: int) -> set[Key]:
    answers = Counter(_key(record) for one in evaluations for record in one.records)
    order = sorted(answers)
    random.Random(seed).shuffle(order)
    kept: set[Key] = set()
    for problem in order:
        if kept and answers[problem] > limit:
            break
        kept.add(problem)
        limit -= answers[problem]
    return kept


def _with_terms(one: Evaluation, kept: set[Key]) -> list[tuple[Record, Mapping[str, float]]]:
    records = sorted((record for record in one.records if _key(record) in kept), key=_key)
    groups = [list(group) for _, group in groupby(records, key=_key)]
    return [pair for group in groups for pair in zip(group, _terms(one, group), strict=True)]


def _key(record: Record) -> Key:
    return record["benchmark"], record["problem_index"]


def _terms(one: Evaluation, group: Sequence[Record]) -> list[dict[str, float]]:
    if one.is_alone:
        return [{"EM": float(record["correct"])} for record in group]
    outcomes = [Outcome.from_record(record) for record in group]
    shown: list[dict[str, float]] = [{} for _ in group]
    for term in all_terms().values():
        # One answer has no group to be short in, nor to have asked well in.
        if term.needs_group and len(group) == 1:
            continue
        shared = term.joint or len(term.roles) == 1
        for terms, scores in zip(shown, term.score(outcomes), strict=True):
            for role in term.roles[:1] if shared else term.roles:
                terms[term.label if shared else f"{term.label} {role}"] = scores.get(role, 0.0)
    return shown


def _row(evaluation: int, record: Record, terms: Mapping[str, float], problems: dict[str, int]) -> dict[str, Any]:
    turns = record["turns"]
    return {
        "e": evaluation,
        "p": problems.setdefault(record["problem"], len(problems)),
        "truth": record.get("ground_truth"),
        "right": bool(record["correct"]),
        "stop": record["stop_reason"],
        "turns": [[turn[key] for key in ("role", "text", "tokens")] + [turn.get("fault")] for turn in turns],
        "terms": {name: round(value, 3) for name, value in terms.items()},
    }


def _title(run: Run, one: Evaluation, *, several: bool) -> str:
    title = one.name if len({other.data for other in run.evaluations}) == 1 else f"{one.data} · {one.name}"
    return f"{run.label} · {title}" if several else title
