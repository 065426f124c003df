"""`longshort importance-report`: weighed records in; PNG, JSON and one HTML page out."""

import json
from collections.abc import Sequence
from pathlib import Path

from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.files import write_text
from verl_longshort.data.summary_table import summary_table
from verl_longshort.report.importance import figures
from verl_longshort.report.importance.chains import read_chains
from verl_longshort.report.importance.page import importance_page, overview
from verl_longshort.report.importance.reader import examples
from verl_longshort.report.importance.statistics import Statistics, compute, plain


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
    write_text(out / "importance.html", importance_page(statistics, examples(chains, count=count, seed=seed), files))
    console.print(summary_table(str(out / "importance.html"), overview(statistics)))
    return statistics
