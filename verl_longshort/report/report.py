"""`longshort report`: one HTML file from the folders of one or several runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from verl_longshort.base.files import write_text
from verl_longshort.data.selection import RULES
from verl_longshort.report.comparison import comparison_section
from verl_longshort.report.curves import curves_section
from verl_longshort.report.facts import facts_section
from verl_longshort.report.importance.chains import read_chains
from verl_longshort.report.importance.page import figure_sections, overview
from verl_longshort.report.importance.statistics import compute
from verl_longshort.report.page import Section, asset, fragment, number, percent, render, signed
from verl_longshort.report.results import Group, Spread, grid_section, headline, results_section
from verl_longshort.report.run_dir import Run, read_runs
from verl_longshort.report.sampled import sampled_section
from verl_longshort.report.scatter import scatter_section
from verl_longshort.report.trajectories import trajectories_section


class Tile(NamedTuple):
    """One headline number."""

    label: str
    value: str
    about: str
    unit: str = ""


def report(folders: Sequence[Path], *, out: Path, base: str | None, trajectories: int, seed: int) -> None:
    """Write the report of the runs in `folders` to `out`.

    `base` is the evaluation that AES is relative to; None: see `choose_bases`. At most `trajectories` of evaluations
    and as many of training go into the page, chosen with `seed`. Raises UserError before anything is written when a
    folder is no run or has no such evaluation.
    """
    write_text(out, report_page(read_runs(folders, base), trajectories=trajectories, seed=seed))


def report_page(runs: Sequence[Run], *, trajectories: int, seed: int) -> str:
    """The page as HTML."""
    best = headline(runs)
    first = best.lines[0].evaluation.name if best else None
    sections = [
        results_section(runs),
        comparison_section(runs),
        scatter_section(runs),
        grid_section(runs),
        curves_section(runs),
        trajectories_section(runs, limit=trajectories, seed=seed, first=first),
        sampled_section(runs, limit=trajectories, seed=seed),
        importance_section(runs),
        facts_section(runs),
    ]
    names = ", ".join(run.root.resolve().name for run in runs)
    context = {"runs": runs, "about": _about(runs), "headline": _tiles(best, len(runs))}
    return render(
        "report.html.jinja",
        context,
        title=f"Long⊗Short: {names}",
        sections=[section for section in sections if section is not None],
        scripts=[asset("viewer.js")],
    )


def importance_section(runs: Sequence[Run]) -> Section | None:
    """The importance of thoughts in the first run that has weighed chains; None when no run has.

    The rule is the one that the run's recipe chose thoughts by; the paper's where that is not recorded.
    """
    run = next((run for run in runs if run.weighed), None)
    if run is None:
        return None
    recorded = run.record.settings.get("rule") if run.record else None
    rule = recorded if recorded in RULES else "m"
    statistics = compute(read_chains(run.weighed, rule=rule), rule=rule)
    context = {
        "run": run.label if len(runs) > 1 else None,
        "numbers": overview(statistics),
        "parts": figure_sections(statistics),
    }
    body = fragment("importance_parts.html.jinja", context)
    return Section(id="importance", title="Importance of thoughts", body=body)


def _about(runs: Sequence[Run]) -> str:
    evaluations = sum(len(run.evaluations) for run in runs)
    seeds = [str(run.record.settings["seed"]) for run in runs if run.record and "seed" in run.record.settings]
    parts = [
        f"{len(runs)} runs" if len(runs) > 1 else "one run",
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}" if seeds else "seed not recorded",
        f"{evaluations} evaluation{'' if evaluations == 1 else 's'}",
        runs[0].date.strftime("%Y-%m-%d"),
    ]
    return " · ".join(parts)


def _tiles(group: Group | None, runs: int) -> list[Tile]:
    if group is None or group.accuracy is None or group.tokens is None:
        return []
    bases = [line.base for line in group.lines if line.base]
    accuracy = Spread.of([base.summary.accuracy.value for base in bases])
    tokens = Spread.of([base.summary.tokens.value for base in bases])
    if accuracy is None or tokens is None or group.is_base:
        return []
    base, saved = bases[0].name, 1 - group.tokens.mean / tokens.mean if tokens.mean else None
    chosen = "chosen on the validation split" + (", run by run" if len(group.lines) > 1 else "")
    if group.score is None:
        against = f"{base} has no correct answer" if not accuracy.mean else "not known"
    elif runs > 1:
        against = f"{signed(group.score.low)} to {signed(group.score.high)} over {runs} runs"
    else:
        against = "base: 0"
    about = f"{base}: {number(tokens.mean)}, {percent(saved, 0)}\u00a0% saved" if saved is not None else base
    return [
        Tile("The pair", group.name, chosen if group.is_chosen else "after the most rounds that were evaluated"),
        Tile("Accuracy", percent(group.accuracy.mean), f"{base}: {percent(accuracy.mean)}\u00a0%", unit="%"),
        Tile("Tokens per answer", number(group.tokens.mean), about),
        Tile("Accuracy-efficiency score", signed(group.score.mean if group.score else None), against),
    ]
