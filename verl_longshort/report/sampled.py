"""Trajectories that were sampled in training, step by step, in the same viewer as those of the evaluations.

What a run has logged may be more than a page can hold. Then all that was logged of some problems is shown, first of
those that were met in most steps: the viewer puts the answers to one problem side by side, across steps.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

from longshort_reward import all_terms

from verl_longshort.data.training_trajectories import SampledTrajectory, read_steps
from verl_longshort.report.page import Section, fragment, json_block
from verl_longshort.report.run_dir import Run
from verl_longshort.report.trajectories import Sample

DATA_ID = "sampled-data"


def sampled_section(runs: Sequence[Run], *, limit: int, seed: int) -> Section | None:
    """The viewer with at most `limit` trajectories of training, or with those of one problem when that is more; None
    when no run has logged any. Opens with the last step.
    """
    sample = sample_steps(runs, limit=limit, seed=seed)
    if not sample.total:
        return None
    titles = sample.data["evaluations"]
    context = {
        "sample": sample,
        "source": DATA_ID,
        "what": "logged trajectories of training",
        "selection": "all that was logged of some problems, those first that were met in most steps",
        "more": " A role has an advantage where it learned.",
        "by": "step",
        "order": "as sampled",
        "evaluations": titles,
        "stops": sample.data["stops"],
        "turns": sorted({len(row["turns"]) for row in sample.data["rows"]}),
        "data": json_block(DATA_ID, {**sample.data, "first": len(titles) - 1}),
    }
    return Section(id="sampled", title="Sampled in training", body=fragment("viewer.html.jinja", context))


def sample_steps(runs: Sequence[Run], *, limit: int, seed: int) -> Sample:
    """At most `limit` trajectories (see `sampled_section`), in the order of runs, steps and groups."""
    counts: Counter[str] = Counter()
    steps: dict[str, set[tuple[str, int]]] = defaultdict(set)
    # read twice, so that only what is shown is held
    for title, one in _logged(runs):
        counts[one.problem_id] += 1
        steps[one.problem_id].add((title, one.step))
    kept = _kept(counts, {problem: len(met) for problem, met in steps.items()}, limit, seed)
    titles: dict[str, int] = {}
    problems: dict[str, int] = {}
    rows = [
        {
            "e": titles.setdefault(f"{title}step {one.step} · {one.round}".removesuffix(" · "), len(titles)),
            "p": problems.setdefault(one.problem, len(problems)),
            "truth": one.ground_truth,
            "right": one.correct,
            "stop": one.stop_reason,
            "turns": [[turn.role, turn.text, turn.tokens, turn.fault] for turn in one.turns],
            "terms": _terms(one),
        }
        for title, one in _logged(runs)
        if one.problem_id in kept
    ]
    data = {
        "evaluations": list(titles),
        "problems": list(problems),
        "stops": sorted({str(row["stop"]) for row in rows}),
        "rows": rows,
    }
    return Sample(data=data, shown=len(rows), total=sum(counts.values()))


def _logged(runs: Sequence[Run]) -> Iterator[tuple[str, SampledTrajectory]]:
    for run in runs:
        for name, folder in run.sampled.items():
            parts = ([run.label] if len(runs) > 1 else []) + ([name] if name else [])
            title = "".join(f"{part} · " for part in parts)
            for one in read_steps(folder):
                yield title, one


def _kept(counts: Counter[str], steps: dict[str, int], limit: int, seed: int) -> set[str]:
    order = sorted(counts)
    random.Random(seed).shuffle(order)
    kept: set[str] = set()
    for problem in sorted(order, key=lambda problem: -steps[problem]):
        if kept and counts[problem] > limit:
            break
        kept.add(problem)
        limit -= counts[problem]
    return kept


def _terms(one: SampledTrajectory) -> dict[str, Any]:
    known = all_terms()
    shown: dict[str, Any] = {}
    for name in dict.fromkeys(name for reward in one.rewards.values() for name in reward.terms):
        term = known.get(name)
        label = term.label if term else name
        shared = len(one.rewards) == 1 or (term is not None and (term.joint or len(term.roles) == 1))
        for role, reward in one.rewards.items():
            if not shared:
                shown[f"{label} {role}"] = _number(reward.terms[name])
            elif term is None or len(one.rewards) == 1 or role == term.roles[0]:
                shown[label] = _number(reward.terms[name])
    for role, reward in one.rewards.items():
        suffix = f" {role}" if len(one.rewards) > 1 else ""
        shown[f"reward{suffix}"] = "neutral" if reward.neutral else _number(reward.total)
        if reward.advantage is not None:
            shown[f"advantage{suffix}"] = _number(reward.advantage)
    return shown


def _number(value: float) -> float | str:
    """For JSON, which has no word for what is not a number."""
    return round(value, 3) if isfinite(value) else str(value)
