"""The pair and its opponents over several seeds, with what each cost: one table from finished runs of the controls.

    bash recipes/run_tiny.sh            # and with seed=1 output=runs/tiny-1, seed=2 output=runs/tiny-2
    bash recipes/run_controls.sh        # and with seed=1 pair_run=runs/tiny-1, seed=2 pair_run=runs/tiny-2
    python benchmarks/opponents.py runs/tiny runs/tiny-1 runs/tiny-2 --output runs/opponents

Each argument is the folder of a pair's run, one for each seed. `opponents.md` and `opponents.json` hold a line for each
row of the controls' table: mean over seeds, in brackets its 95 % interval over seeds, in parentheses the lowest and
highest. A row that a seed lacks counts the seeds that have it; a figure that some run did not record is a dash.

* **AES** is relative to the long chain of the same seed's base.
* **parameters** are those of all models that must be held to answer.
* **SFT tokens** had the loss on them, once for each epoch; **RL tokens** were sampled for training, those of dropped
  groups included. What comes before SFT (base, chains, weighing) is the same for all and not counted.
* **minutes** of training: wall clock of SFT and of the steps of RL, the sum of what ran at the same time.
* **s/problem** is the median over the answers of an evaluation with `max_num_seqs` requests under way, so compare it
  only between runs on the same, otherwise idle machine.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.files import write_json, write_text
from verl_longshort.core.schedule import Schedule
from verl_longshort.evaluation.over_seeds import Spread, shown, spread
from verl_longshort.evaluation.table import Cells, TableRow, cells_as_markdown, load_rows
from verl_longshort.report.costs import TrainingCost, parameters, rl_cost, sft_cost

LONG_CHAIN = "long-CoT"
FINAL = "pair"
"""The row of the pair after all rounds, whose evaluation has the name of the last one."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Folders, below the pair's run, of the trainings behind a row."""

    sft: tuple[str, ...] = ()
    rl: tuple[str, ...] = ()


PAIR_SFT = ("sft/long", "sft/short")
ROWS: Mapping[str, Trained] = {
    LONG_CHAIN: Trained(),
    "direct": Trained(),
    "base": Trained(),
    "L0S0": Trained(sft=PAIR_SFT),
    FINAL: Trained(sft=PAIR_SFT, rl=("pair",)),
    "tied-start": Trained(sft=("controls/sft/tied",)),
    "tied": Trained(sft=("controls/sft/tied",), rl=("controls/tied",)),
    "single-sft-start": Trained(sft=("controls/sft/alone",)),
    "single-sft": Trained(sft=("controls/sft/alone",), rl=("controls/single-sft",)),
    "single-dler": Trained(rl=("controls/single-dler",)),
    "single-length": Trained(rl=("controls/single-length",)),
    "single": Trained(rl=("controls/single",)),
    "early-stop": Trained(),
    "prompt-only": Trained(),
    # it is trained with its partner, and not without it
    "long-alone": Trained(sft=PAIR_SFT, rl=("pair",)),
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of one seed."""

    row: TableRow
    held: int | None
    """Parameters."""
    sft: TrainingCost
    rl: TrainingCost

    @property
    def minutes(self) -> float | None:
        """Of training."""
        known = [cost.seconds for cost in (self.sft, self.rl)]
        return None if None in known else sum(seconds for seconds in known if seconds is not None) / 60


COLUMNS: Mapping[str, tuple[Callable[[Entry], float | None], str]] = {
    "accuracy %": (lambda entry: 100 * entry.row.summary.accuracy.value, ".1f"),
    "tokens": (lambda entry: entry.row.summary.tokens.value, ".1f"),
    "AES": (lambda entry: entry.row.score.value if entry.row.score else None, "+.2f"),
    "parameters": (lambda entry: entry.held, ",.0f"),
    "SFT tokens": (lambda entry: entry.sft.tokens, ",.0f"),
    "RL tokens": (lambda entry: entry.rl.tokens, ",.0f"),
    "minutes": (lambda entry: entry.minutes, ".1f"),
    "s/problem": (lambda entry: entry.row.summary.seconds["p50"], ".2f"),
}
"""Heading -> the figure of a row, and how it is written."""


def last_label(run: Path) -> str:
    """The pair after all rounds of a run, in the paper's notation. Raises UserError when the folder is no recipe's."""
    record = run / "run.json"
    if not record.is_file():
        raise UserError("RUN", run, "has no run.json: give the output folder of a pair's recipe")
    settings = json.loads(record.read_text(encoding="utf-8"))["settings"]
    schedule = Schedule.parse(settings["schedule"], settings["steps_per_round"])
    return schedule.label(schedule.total_steps)


def entries(run: Path) -> dict[str, Entry]:
    """The rows of one seed that are there. Raises UserError for unfinished ones and where the long chain is missing."""
    last = last_label(run)
    files = {}
    for name in ROWS:
        record = f"{last if name == FINAL else name}.jsonl"
        file = next((f for f in (run / "results" / record, run / "controls/results" / record) if f.is_file()), None)
        if file is not None:
            files[name] = file
    if LONG_CHAIN not in files:
        raise UserError("RUN", run, f"has no results/{LONG_CHAIN}.jsonl, which AES is relative to")
    rows = load_rows(list(files.values()), LONG_CHAIN)
    found = {}
    for name, row in zip(files, rows, strict=True):
        trained = ROWS[name]
        found[name] = Entry(
            row=row,
            held=parameters(row.header),
            sft=sft_cost([run / folder for folder in trained.sft]),
            rl=rl_cost([run / folder for folder in trained.rl]),
        )
    return found


def table(seeds: Sequence[Mapping[str, Entry]]) -> tuple[Cells, list[dict[str, Any]]]:
    """A line for each row, and the same with every seed's figure."""
    lines, content = [], []
    for name in ROWS:
        mine = [found[name] for found in seeds if name in found]
        if not mine:
            continue
        figures = {heading: spread([value(entry) for entry in mine]) for heading, (value, _) in COLUMNS.items()}
        # equal in every seed: nothing to spread
        cells = [_cell(figures[heading], form) for heading, (_, form) in COLUMNS.items()]
        lines.append((name, str(len(mine)), *cells))
        json_figures = {heading: None if figure is None else figure.to_json() for heading, figure in figures.items()}
        content.append({"row": name, "seeds": len(mine), **json_figures})
    return Cells(headings=("", "seeds", *COLUMNS), lines=lines, names=1), content


def _cell(figure: Spread | None, form: str) -> str:
    if figure is not None and len(set(figure.values)) == 1:
        figure = Spread(values=figure.values[:1])
    return shown(figure, lambda value: format(value, form))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a pair's run, one for each seed")
    parser.add_argument("--output", type=Path, default=Path("runs/opponents"))
    asked = parser.parse_args(arguments)
    cells, content = table([entries(run) for run in asked.runs])
    text = cells_as_markdown(cells)
    write_json(asked.output / "opponents.json", {"runs": [str(run) for run in asked.runs], "rows": content})
    write_text(asked.output / "opponents.md", text)
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"Error: {error}")
