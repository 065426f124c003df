"""What the keys of docs/training.md, "What teaches", do to the pair of the miniature world.

Every arm is one `longshort train` with the tiny recipe's settings and the arm's own, at each learning rate and seed,
from the same fine-tuned pair: that of the recipe with the paper's rule `m`, which leaves RL something to do. The last
pair is evaluated on the 500 test problems of the recipe. Below `--output` there are `ablation.json` (every run, as
`longshort table` gives it, with arm, rate and seed) and `ablation.md` (a line for each arm and rate: mean over seeds,
lowest and highest). What is done is skipped when the command is given again; an interrupted run resumes.

    python benchmarks/ablation.py --list                  # arms, and how many runs are missing
    python benchmarks/ablation.py --output runs/ablation  # all: hours
    python benchmarks/ablation.py --arms std gdpo --rates 1e-4 --seeds 0 1 2
    python benchmarks/ablation.py --arms std --rates 1e-4 --seeds 0 --schedule both --steps-per-round 2   # a trial
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.files import write_json, write_text
from verl_longshort.evaluation.table import TableRow, load_rows
from verl_longshort.recipe.launcher import run_recipe
from verl_longshort.recipe.recipe import Recipe, Selection, find_recipe, load_recipe

FILTER = "algorithm.filter_groups"
FEWER = "actor_rollout_ref.actor.ppo_mini_batch_size=4"
ARMS: dict[str, tuple[str, ...]] = {
    "std": (),
    "no-std": ("algorithm.norm_adv_by_std_in_grpo=false",),
    "gdpo": ("algorithm.adv_estimator=gdpo",),
    "batch": ("algorithm.adv_estimator=reinforce_plus_plus_baseline",),
    # clipping acts only where a step makes several updates
    "four-updates": (FEWER,),
    "clip-higher": (FEWER, "actor_rollout_ref.actor.clip_ratio_high=0.28"),
    "filter-reward": (f"{FILTER}.enable=true", f"{FILTER}.max_num_gen_batches=3"),
    "filter-acc": (f"{FILTER}.enable=true", f"{FILTER}.max_num_gen_batches=3", f"{FILTER}.metric=acc"),
}
START = "L0S0"
BEFORE_RL = ("world", "base", "chunk", "weigh", "coldstart", "sft-long", "sft-short", "evaluate-sft")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm at one learning rate with one seed of RL."""

    arm: str
    rate: str
    seed: int

    @property
    def name(self) -> str:
        """In the table and of its folder."""
        return f"{self.arm}-{self.rate}-{self.seed}"


def changed(command: Sequence[str], settings: Iterable[str]) -> list[str]:
    """The command with `key=value` settings in place of those it has for the same keys, or added."""
    wanted = dict(setting.split("=", 1) for setting in settings)
    kept = [argument for argument in command if argument.partition("=")[0] not in wanted]
    return [*kept, *(f"{key}={value}" for key, value in wanted.items())]


def commands(run: Run, recipe: Recipe, folder: Path) -> Iterator[list[str]]:
    """Training and evaluation of a run whose outputs lie in `folder`."""
    known = {stage.name: stage.command for stage in recipe.stages}
    pair, step = folder / "pair", int(recipe.settings["steps_per_round"]) * len(recipe.settings["schedule"])
    yield changed(
        known["train"],
        [
            f"trainer.default_local_dir={pair}",
            f"data.seed={run.seed}",
            f"actor_rollout_ref.rollout.seed={run.seed}",
            f"actor_rollout_ref.actor.optim.lr={run.rate}",
            "longshort.keep_checkpoints=1",
            *ARMS[run.arm],
        ],
    )
    models = {role: pair / role / f"global_step_{step}" / "actor" / "huggingface" for role in ("long", "short")}
    yield changed(
        known["evaluate-sft"],
        [
            f"longshort.name={run.name}",
            f"longshort.output_dir={folder}",
            *(f"longshort.models.{role}={model}" for role, model in models.items()),
        ],
    )


def do(run: Run, recipe: Recipe, folder: Path) -> None:
    """Train and evaluate; raises CalledProcessError when a command fails."""
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands(run, recipe, folder):
        with (folder / "log.txt").open("ab") as log:
            subprocess.run(
                [sys.executable, "-m", "verl_longshort.cli", *command[1:]],
                env={**os.environ, **recipe.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                check=True,
            )


def summary(rows: Mapping[Run, TableRow], start: TableRow) -> str:
    """The runs as Markdown, a line for each arm and learning rate."""

    def spread(values: Sequence[float], digits: int) -> str:
        low, high = min(values), max(values)
        return f"{fmean(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    def interval(value: Any, scale: float, digits: int) -> str:
        return f"{scale * value.value:.{digits}f} [{scale * value.low:.{digits}f}, {scale * value.high:.{digits}f}]"

    lines = ["| arm | learning rate | seeds | accuracy, % | tokens | each seed: accuracy [95 %], tokens [95 %] |"]
    lines.append("|---|---|---|---|---|---|")
    own = start.summary
    lines.append(f"| before RL | | | {interval(own.accuracy, 100, 1)} | {interval(own.tokens, 1, 1)} | |")
    for arm, rate in dict.fromkeys((run.arm, run.rate) for run in rows):
        mine = [(run, row.summary) for run, row in rows.items() if (run.arm, run.rate) == (arm, rate)]
        accuracy = spread([100 * one.accuracy.value for _, one in mine], 1)
        tokens = spread([one.tokens.value for _, one in mine], 1)
        each = "; ".join(
            f"{run.seed}: {interval(one.accuracy, 100, 1)}, {interval(one.tokens, 1, 1)}" for run, one in mine
        )
        lines.append(f"| {arm} | {rate} | {len(mine)} | {accuracy} | {tokens} | {each} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--start", type=Path, help="a run of the tiny recipe to start from; by default one is made")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--rates", nargs="+", default=["1e-4", "3e-4"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--schedule", help="rounds, such as both or [long,short]; the recipe's by default")
    parser.add_argument("--steps-per-round", type=int)
    parser.add_argument("--list", action="store_true", help="say what would be run")
    asked = parser.parse_args()

    console = Console()
    start = asked.start or asked.output / "start"
    overrides = [f"output={start.absolute()}", "rule=m"]
    if asked.schedule:
        overrides.append(f"schedule=[{asked.schedule.strip('[]')}]")
    if asked.steps_per_round:
        overrides.append(f"steps_per_round={asked.steps_per_round}")
    recipe = load_recipe(find_recipe("tiny"), overrides)
    # all arms of one seed first: what is there is comparable at any time
    runs = [Run(arm=arm, rate=rate, seed=seed) for seed, rate, arm in product(asked.seeds, asked.rates, asked.arms)]
    records = {run: asked.output.absolute() / run.name / f"{run.name}.jsonl" for run in runs}
    finished = {run: records[run].parent / f"{run.name}.json" for run in runs}
    missing = [run for run in runs if not finished[run].exists()]
    for run in runs:
        console.print(f"{run.name}: {'to do' if run in missing else 'done'}", highlight=False)
    if asked.list:
        return
    if asked.start is None and run_recipe(find_recipe("tiny"), overrides, console, Selection(only=BEFORE_RL)):
        sys.exit("the pair to start from was not made")
    failed = []
    for number, run in enumerate(missing, start=1):
        console.print(f"[{number} of {len(missing)}] {run.name}", highlight=False, markup=False)
        try:
            do(run, recipe, records[run].parent)
        except subprocess.CalledProcessError as error:
            # the other arms are worth having
            log = records[run].parent / "log.txt"
            console.print(f"{run.name}: exit status {error.returncode}, see {log}", markup=False, highlight=False)
            failed.append(run.name)
    done = [run for run in runs if finished[run].exists()]
    if done:
        own, *rows = load_rows([start / "results" / f"{START}.jsonl", *(records[run] for run in done)], START)
        by_run = dict(zip(done, rows, strict=True))
        each = [{**vars(run), "overrides": ARMS[run.arm], **row.to_json()} for run, row in by_run.items()]
        write_json(asked.output / "ablation.json", {"start": own.to_json(), "runs": each})
        table = summary(by_run, own)
        write_text(asked.output / "ablation.md", table)
        console.print(table, markup=False, highlight=False, soft_wrap=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"Error: {error}")
