"""The page `importance.html`: numbers, figures and the reader in one file that needs no network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from verl_longshort.evaluation.metrics import Interval
from verl_longshort.report.importance import figures, reader
from verl_longshort.report.importance.chains import WeighedChain
from verl_longshort.report.importance.statistics import SETTLED, Statistics
from verl_longshort.report.page import Section, fragment, render

_SECTIONS = (
    ("importance", "Importance", ("importance_by_position", "importance_by_share", "labels", "kinds")),
    (
        "prefixes",
        "Accuracy and length",
        ("accuracy_by_count", "accuracy_by_share", "tokens_by_count", "tokens_by_share"),
    ),
    ("certainty", "How sure", ("noise", "gaps")),
    ("chains", "Chains", ("survivors", "per_chain")),
)


def importance_page(statistics: Statistics, shown: Sequence[WeighedChain], files: Sequence[Path]) -> str:
    """The whole page; `shown` are the chains that can be read in it, `files` what the records come from."""
    return render(
        "importance.html.jinja",
        {"statistics": statistics},
        title="Importance of thoughts",
        sections=[
            _section("overview", "Overview", statistics, plots=[], files=files),
            *figure_sections(statistics),
            Section(id="read", title="Read a chain", body=reader.fragment(shown, rule=statistics.rule)),
        ],
        scripts=[reader.script()],
        package=reader.PACKAGE,
    )


def figure_sections(statistics: Statistics) -> list[Section]:
    """The figures with what there is to say about them, for any page that extends the shared base."""
    plots = figures.inline(statistics)
    return [
        _section(name, title, statistics, plots=[plots[each] for each in names if each in plots])
        for name, title, names in _SECTIONS
        if any(each in plots for each in names)
    ]


def overview(statistics: Statistics) -> dict[str, str]:
    """The main numbers by name, for the terminal."""
    s = statistics
    long = sum(count * chains for count, chains in s.kept_per_chain.items())
    rows = {
        "chains": f"{s.chains} ({s.problems} problems)",
        "thoughts": f"{s.thoughts} ({s.thoughts / s.chains:.1f} per chain)",
        "rollouts": f"{s.rollouts} ({s.rollouts / (s.thoughts + s.chains):.1f} per prefix)",
        "accuracy without thoughts": ranged(s.accuracy_start),
        "accuracy with all": ranged(s.accuracy_end),
        f"stay long ({s.rule})": f"{long / s.chains:.2f} per chain",
        "their share of the tokens": ranged(s.kept_tokens),
    }
    noise = next((row for row in s.noise if row.threshold == SETTLED), None)
    if noise is None or s.bound is None:
        return rows
    return rows | {
        f"decisions within noise ({1 - SETTLED:.0%})": ranged(noise.decisions),
        "δ within noise": ranged(noise.delta) if noise.delta else "not recorded",
        "error bound (mean)": f"{s.bound.mean:.2f}",
        "bound above the gap": ranged(s.bound.above_gap),
    }


def ranged(share: Interval) -> str:
    """A share in per cent with its interval."""
    if share.low != share.low:
        return f"{share.value:.1%}"
    return f"{share.value:.1%} [{100 * share.low:.1f} – {100 * share.high:.1f}]"


def _section(
    name: str, title: str, statistics: Statistics, *, plots: Sequence[Markup], files: Sequence[Path] = ()
) -> Section:
    context: dict[str, Any] = {
        "name": name,
        "s": statistics,
        "plots": plots,
        "rows": overview(statistics),
        "files": files,
        "settled": SETTLED,
    }
    return Section(
        id=name,
        title=title,
        body=fragment("section.html.jinja", context, package=reader.PACKAGE),
    )
