"""`longshort report`: one HTML file from the folders of one or several runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longshort_reward.errors import UserError

from verl_longshort.base.files import write_text
from verl_longshort.report.comparison import comparison_section
from verl_longshort.report.curves import curves_section
from verl_longshort.report.facts import facts_section
from verl_longshort.report.grid import grid_section
from verl_longshort.report.importance_section import importance_sections
from verl_longshort.report.page import asset, number, percent, render, signed
from verl_longshort.report.results import Group, Spread, headline, results_section
from verl_longshort.report.run_dir import Run, read_runs
from verl_longshort.report.scatter import scatter_section
from verl_longshort.report.trajectories import trajectories_section


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One headline number."""

    label: str
    value: str
    unit: str
    about: str


def report(folders: Sequence[Path], *, out: Path, base: str | None, trajectories: int, seed: int) -> None:
    """Write the report of the runs in `folders` to `out`.

    `base` is the evaluation that AES is relative to; None: see `choose_bases`. At most `trajectories` of them
    go into the viewer, drawn with `seed`. Raises UserError before anything is written when a folder is no run
    or a setting cannot be used.
    """
    if trajectories < 0:
        raise UserError("--trajectories", trajectories, "must be 0 or more")
    runs = read_runs(folders, base)
    write_text(out, report_page(runs, trajectories=trajectories, seed=seed))


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
        *importance_sections(runs),
        facts_section(runs),
    ]
    names = ", ".join(run.root.resolve().name for run in runs)
    context = {"runs": runs, "about": _about(runs), "headline": _tiles(runs)}
    return render(
        "report.html.jinja",
        context,
        title=f"Long⊗Short: {names}",
        sections=[section for section in sections if section is not None],
        scripts=[asset("viewer.js")],
    )


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


def _tiles(runs: Sequence[Run]) -> list[Tile]:
    group = headline(runs)
    if group is None or group.accuracy is None or group.tokens is None:
        return []
    bases = [line.base for line in group.lines if line.base]
    accuracy = Spread.of([base.summary.accuracy.value for base in bases])
    tokens = Spread.of([base.summary.tokens.value for base in bases])
    if accuracy is None or tokens is None or group.is_base:
        return []
    name = bases[0].name
    saved = 1 - group.tokens.mean / tokens.mean
    return [
        Tile(label="The pair", value=group.name, unit="", about=_why(group)),
        Tile(
            label="Right answers",
            value=percent(group.accuracy.mean),
            unit="%",
            about=f"{name}: {percent(accuracy.mean)}\u00a0%",
        ),
        Tile(
            label="Tokens per answer",
            value=number(group.tokens.mean),
            unit="",
            about=f"{name}: {number(tokens.mean)}, {percent(saved, 0)}\u00a0% saved",
        ),
        Tile(
            label="Accuracy-efficiency score",
            value=signed(group.score.mean if group.score else None),
            unit="",
            about=_range(group.score, len(runs)),
        ),
    ]


def _why(group: Group) -> str:
    if not group.is_chosen:
        return "after the most rounds that were evaluated"
    return "chosen on the validation split" + (", run by run" if len(group.lines) > 1 else "")


def _range(score: Spread | None, runs: int) -> str:
    if score is None:
        return "not known"
    return f"{signed(score.low)} to {signed(score.high)} over {runs} runs" if runs > 1 else "base: 0"
