"""`longshort importance-report`: weighed records in; PNG, JSON and one HTML page out, which needs no network.

In the page chains can be read thought by thought. The texts of the records reach it as JSON, and the document as
text nodes only.
"""

import json
import random
import statistics as stats
from collections.abc import Sequence
from itertools import chain as joined
from itertools import zip_longest
from pathlib import Path

from longshort_reward.errors import UserError
from markupsafe import Markup
from rich.console import Console

from verl_longshort.base.files import Record, write_text
from verl_longshort.data.card import summary_table
from verl_longshort.data.importance import PENALTY
from verl_longshort.evaluation.metrics import Interval
from verl_longshort.report.importance import figures
from verl_longshort.report.importance.chains import WeighedChain, read_chains
from verl_longshort.report.importance.statistics import SETTLED, Statistics, compute, plain
from verl_longshort.report.page import Section, asset, fragment, json_block, render

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


def importance_report(
    files: Sequence[Path], *, out: Path, rule: str, count: int, seed: int, console: Console
) -> Statistics:
    """Write the report of the weighed records in `files` to the folder `out`, and print its main numbers.

    `count` chains, chosen by `seed`, can be read in the page. Raises UserError before anything is written when
    a file, a record or an option cannot be used.
    """
    if count < 1:
        raise UserError("--examples", count, "must be 1 or more")
    if out.exists() and not out.is_dir():
        raise UserError("--out", out, "is a file: give a folder")
    chains = read_chains(files, rule=rule)
    statistics = compute(chains, rule=rule)
    figures.write_png(statistics, out)
    numbers = {"files": [str(file) for file in files], **plain(statistics)}
    write_text(out / "importance.json", json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    about = {"name": "overview", "s": statistics, "plots": [], "rows": overview(statistics), "files": files}
    page = render(
        "importance.html.jinja",
        {"statistics": statistics},
        title="Importance of thoughts",
        sections=[
            Section(id="overview", title="Overview", body=fragment("importance_section.html.jinja", about)),
            *figure_sections(statistics),
            _reader_section(examples(chains, count=count, seed=seed), rule),
        ],
        scripts=[asset("reader.js")],
    )
    write_text(out / "importance.html", page)
    console.print(summary_table(str(out / "importance.html"), overview(statistics)))
    return statistics


def figure_sections(statistics: Statistics) -> list[Section]:
    """The figures with what there is to say about them, for any page that extends the shared base."""
    plots = figures.inline(statistics)
    sections = []
    for name, title, names in _SECTIONS:
        if shown := [plots[each] for each in names if each in plots]:
            context = {"name": name, "s": statistics, "plots": shown, "settled": SETTLED}
            sections.append(Section(id=name, title=title, body=fragment("importance_section.html.jinja", context)))
    return sections


def overview(statistics: Statistics) -> dict[str, str]:
    """The main numbers by name, shares in per cent with their intervals."""
    s = statistics
    long = sum(count * chains for count, chains in s.kept_per_chain.items())
    rows = {
        "chains": f"{s.chains} ({s.problems} problems)",
        "thoughts": f"{s.thoughts} ({s.thoughts / s.chains:.1f} per chain)",
        "rollouts": f"{s.rollouts} ({s.rollouts / (s.thoughts + s.chains):.1f} per prefix)",
        "accuracy without thoughts": _ranged(s.accuracy_start),
        "accuracy with all": _ranged(s.accuracy_end),
        f"stay long ({s.rule})": f"{long / s.chains:.2f} per chain",
        "their share of the tokens": _ranged(s.kept_tokens),
    }
    noise = next((row for row in s.noise if row.threshold == SETTLED), None)
    if noise is None or s.bound is None:
        return rows
    return rows | {
        f"decisions within noise ({1 - SETTLED:.0%})": _ranged(noise.decisions),
        "δ within noise": _ranged(noise.delta) if noise.delta else "not recorded",
        "error bound (mean)": f"{s.bound.mean:.2f}",
        "bound above the gap": _ranged(s.bound.above_gap),
    }


def examples(chains: Sequence[WeighedChain], *, count: int, seed: int) -> list[WeighedChain]:
    """`count` chains chosen by `seed`, in their order; half of them end in a correct answer, as far as there are."""
    shuffled = random.Random(seed).sample(range(len(chains)), len(chains))
    incorrect = [index for index in shuffled if not chains[index].correct]
    correct = [index for index in shuffled if chains[index].correct]
    by_turns = [index for index in joined(*zip_longest(correct, incorrect)) if index is not None]
    return [chains[index] for index in sorted(by_turns[:count])]


def payload(chains: Sequence[WeighedChain]) -> Record:
    """What the reader's script reads: `lowest` and `highest` M of the colours, and the chains."""
    highest = max((float(chain.m.max()) for chain in chains), default=PENALTY)
    return {
        "lowest": -PENALTY,
        "highest": round(max(highest, PENALTY), 2),
        "chains": [_for_reader(chain) for chain in chains],
    }


def _reader_section(chains: Sequence[WeighedChain], rule: str) -> Section:
    data = payload(chains)
    context = {
        "style": Markup(asset("reader.css")),
        "data": json_block("reader-data", data),
        "rule": rule,
        "lowest": data["lowest"],
        "highest": data["highest"],
        "chains": len(chains),
    }
    return Section(id="read", title="Read a chain", body=fragment("reader.html.jinja", context))


def _for_reader(chain: WeighedChain) -> Record:
    labels = chain.labels or (None,) * len(chain.keep)
    return {
        "id": chain.record.id,
        "problem": chain.problem,
        "answer": str(chain.record.ground_truth),
        "right": chain.correct,
        "tokens": int(chain.lengths[-1]),
        "start": round(float(chain.accuracies[0]), 3),
        "thoughts": [
            {
                "text": thought.text.strip("\n"),
                "kind": thought.kind,
                "label": label,
                "keep": keep,
                "surprise": round(stats.median(thought.surprisals), 2) if thought.surprisals else None,
                "right": thought.correct,
                "samples": thought.samples,
                "tokens": thought.tokens,
                **{
                    name: round(getattr(thought, name), 3)
                    for name in ("m", "p", "p_low", "p_high", "delta", "bound", "flip")
                },
            }
            for thought, keep, label in zip(chain.record.thoughts, chain.keep, labels, strict=True)
        ],
    }


def _ranged(share: Interval) -> str:
    known = f" [{100 * share.low:.1f} – {100 * share.high:.1f}]" if share.low == share.low else ""
    return f"{share.value:.1%}{known}"
