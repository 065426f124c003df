"""The section on the importance of thoughts, of runs that weighed chains."""

from collections.abc import Sequence

from verl_longshort.data.selection import RULES
from verl_longshort.report.page import Section, fragment
from verl_longshort.report.run_dir import Run

PAPERS_RULE = "m"
"""M above the highest M before it."""


def importance_sections(runs: Sequence[Run]) -> list[Section]:
    """One section for the first run that has weighed chains; none when no run has."""
    run = next((run for run in runs if run.weighed), None)
    if run is None:
        return []
    from verl_longshort.report.importance.chains import read_chains
    from verl_longshort.report.importance.page import figure_sections, overview
    from verl_longshort.report.importance.statistics import compute

    rule = _rule(run)
    statistics = compute(read_chains(run.weighed, rule=rule), rule=rule)
    context = {
        "run": run.label if len(runs) > 1 else None,
        "numbers": overview(statistics),
        "parts": figure_sections(statistics),
    }
    body = fragment("importance_parts.html.jinja", context)
    return [Section(id="importance", title="Importance of thoughts", body=body)]


def _rule(run: Run) -> str:
    """The rule that the run's recipe chose thoughts by; the paper's where that is not recorded."""
    rule = run.record.settings.get("rule") if run.record else None
    return rule if rule in RULES else PAPERS_RULE
