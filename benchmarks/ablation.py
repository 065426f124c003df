"""What each part of the method does to the pair of the miniature world: arms over seeds, in one table.

`arms.yaml` beside this file says what each arm changes of the tiny recipe, and from which stage on it runs by itself;
everything before is shared, per seed, with the arm `default`, which changes nothing. A run is the recipe itself with a
folder of its own below `--output`; its last pair is evaluated on the recipe's 500 test problems. What is done is
skipped when the command is given again, an interrupted run resumes, and a run that fails leaves the others alone.

`ablation.md` and `ablation.json` there hold a line for each arm (and learning rate): mean over seeds, in brackets its
95 % interval over seeds, in parentheses the lowest and highest; and the difference from `default`, seed by seed.

    python benchmarks/ablation.py --list                               # what is missing, minutes; what is done, a table
    python benchmarks/ablation.py --dry-run                            # checks every command; nothing is run
    python benchmarks/ablation.py --output runs/ablation               # the parts of the method, three seeds: hours
    python benchmarks/ablation.py --groups advantages --rates 1e-4 3e-4
    python benchmarks/ablation.py --arms no-length --seeds 0 schedule=[both] steps_per_round=2   # a trial
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from omegaconf import OmegaConf
from rich.console import Console

from verl_longshort.base.files import write_json, write_text
from verl_longshort.base.run_record import DONE, read_marker, read_record
from verl_longshort.core.schedule import Schedule
from verl_longshort.evaluation.over_seeds import Spread, shown, spread
from verl_longshort.evaluation.table import Cells, TableRow, cells_as_markdown, load_rows
from verl_longshort.planner.machine import detect_machine
from verl_longshort.planner.plan_recipe import check_stages
from verl_longshort.recipe.assumptions import Assumptions
from verl_longshort.recipe.launcher import INTERRUPTED, run_recipe
from verl_longshort.recipe.recipe import Recipe, RecipeStage, Selection, find_recipe, load_recipe

RECIPE = "tiny"
ARMS_FILE = Path(__file__).with_name("arms.yaml")
DEFAULT = "default"
LONG_CHAIN, BEFORE_RL = "long-CoT", "L0S0"
FIRST = ("world", "base", "chunk", "weigh", "evaluate-alone")
TAUGHT = ("coldstart", "sft-long", "sft-short", "evaluate-sft")
STARTS = {"coldstart": TAUGHT, "train": ()}
"""Where an arm may begin -> stages that it then runs before RL."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is changed of the recipe."""

    name: str
    start: str
    """The first stage that it runs by itself."""
    settings: tuple[str, ...]
    """`key=value` of the recipe."""

    @classmethod
    def read(cls, name: str, entry: Mapping[str, Any]) -> "Arm":
        """From the arms' file. Raises UserError for a start that is none."""
        start = entry.get("from", "train")
        if start not in STARTS:
            raise UserError(f"{name}.from", start, f"must be one of {', '.join(STARTS)}")
        return cls(
            name=name, start=start, settings=tuple(_setting(*pair) for pair in entry.items() if pair[0] != "from")
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm with one seed, at one learning rate where several are compared."""

    arm: Arm
    seed: int
    rate: str | None
    root: Path
    """Folder of all runs."""
    begin: Path
    """The run that world, base, weighed thoughts, cold start and SFT are shared with."""
    common: tuple[str, ...]
    """`key=value` of every run."""

    @property
    def row(self) -> str:
        """Of the table."""
        return self.arm.name if self.rate is None else f"{self.arm.name} at {self.rate}"

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(part for part in (self.arm.name, self.rate, str(self.seed)) if part)

    @property
    def overrides(self) -> list[str]:
        """The `key=value` of the recipe."""
        folders = [f"output={self.root / self.name}", f"prepared={self.begin}"]
        if self.arm.start == "train":
            folders += [f"cold_start={self.begin}/cold_start", f"fine_tuned={self.begin}/sft"]
        rate = [] if self.rate is None else [f"lr={self.rate}"]
        # what stands later wins, but options of training are a list
        given = [*self.common, f"seed={self.seed}", *folders, *rate, *self.arm.settings]
        return _with_option(given, "options.train", "longshort.keep_checkpoints=1")

    @cached_property
    def recipe(self) -> Recipe:
        """With the arm's settings."""
        return load_recipe(find_recipe(RECIPE), self.overrides)

    @property
    def label(self) -> str:
        """The last pair, in the paper's notation."""
        schedule = Schedule.parse(self.recipe.settings["schedule"], self.recipe.settings["steps_per_round"])
        return schedule.label(schedule.total_steps)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of those that it runs."""
        return (*STARTS[self.arm.start], "train", f"evaluate-{self.label}")

    def results(self, name: str) -> Path:
        """Records of one of its evaluations."""
        return self.root / self.name / "results" / f"{name}.jsonl"


def _arms_file() -> Any:
    return OmegaConf.to_container(OmegaConf.load(ARMS_FILE))


def groups_of_arms() -> dict[str, dict[str, Arm]]:
    """The arms by group and name. Raises UserError for a name that is used twice."""
    groups = {
        group: {name: Arm.read(name, entry) for name, entry in arms.items()}
        for group, arms in _arms_file()["groups"].items()
    }
    names = [name for arms in groups.values() for name in (DEFAULT, *arms)]
    for name in names:
        if name != DEFAULT and names.count(name) > 1:
            raise UserError(str(ARMS_FILE), name, "is the name of two arms")
    return groups


def _setting(key: str, value: Any) -> str:
    return f"{key}={_written(value)}"


def _written(value: Any) -> str:
    return f"[{','.join(map(_written, value))}]" if isinstance(value, list) else str(value)


def _with_option(settings: Sequence[str], key: str, option: str) -> list[str]:
    """The settings with one more option in the list `key`, which they may have."""
    before = [setting.partition("=")[2].strip("[]") for setting in settings if setting.startswith(f"{key}=")]
    rest = [setting for setting in settings if not setting.startswith(f"{key}=")]
    return [*rest, f"{key}=[{','.join([option, *before])}]"]


def missing(recipe: Recipe, names: Sequence[str]) -> list[RecipeStage]:
    """Of the stages `names` those that a run would do: not done yet, or with another command."""
    fingerprints = recipe.fingerprints()

    def done(stage: RecipeStage) -> bool:
        marker = read_marker(recipe.output / "stages" / f"{stage.name}.json")
        same = marker is not None and marker.status == DONE and marker.fingerprint == fingerprints[stage.name]
        return same and all(output.exists() for output in stage.outputs)

    return [stage for stage in recipe.stages if stage.name in names and not done(stage)]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All runs of a command."""

    runs: tuple[Run, ...]
    starts: Mapping[int, Recipe]
    """Seed -> the recipe of the run that its runs start from."""
    given: bool
    """The starts were there before."""

    def listed(self, console: Console) -> None:
        """Say what is missing of every run, and the minutes that this takes by the recipe's own estimates."""
        total = 0.0
        waiting: dict[str, tuple[Recipe, tuple[str, ...]]] = {run.name: (run.recipe, run.stages) for run in self.runs}
        if not self.given:
            starts = {f"start-{seed}": (one, FIRST + TAUGHT) for seed, one in self.starts.items()}
            waiting = {**starts, **waiting}
        for name, (recipe, names) in waiting.items():
            stages = missing(recipe, names)
            minutes = sum(max((one.minutes for one in group if one in stages), default=0.0) for group in recipe.groups)
            total += minutes
            what = f"{', '.join(stage.name for stage in stages)}: {minutes:.0f} minutes" if stages else "done"
            console.print(f"{name}: {what}", highlight=False, soft_wrap=True)
        said = "by the recipe's estimates, for two idle cores and one run after the other"
        console.print(f"{total / 60:.1f} hours in all, {said}", highlight=False, soft_wrap=True)

    def check(self, console: Console) -> list[str]:
        """Run the commands of the first seed's runs up to where their work would begin; what is wrong, a line each."""
        seed = next(iter(self.starts))
        with tempfile.TemporaryDirectory(prefix="longshort-dry-") as temporary:
            scratch = Path(temporary).resolve()
            own = [*self.runs[0].common, f"seed={seed}", f"output={scratch / 'start'}"]
            start = load_recipe(find_recipe(RECIPE), own)
            groups = list(_chosen(start, FIRST + TAUGHT, "start"))
            for run in (one for one in self.runs if one.seed == seed):
                moved = replace(run, root=scratch / "runs", begin=start.output)
                groups += _chosen(moved.recipe, moved.stages, run.name)
            whole = replace(start, groups=tuple(groups))
            assumptions, machine = Assumptions.of_recipe(start.settings), detect_machine(start.output)
            checked = check_stages(whole, scratch, assumptions, machine, console)
            console.print(f"{len(checked)} commands checked, those of seed {seed}", highlight=False)
            return [f"{one.stage.name}: {one.problem}" for one in checked if one.problem is not None]


def _chosen(recipe: Recipe, names: Sequence[str], prefix: str) -> Iterator[tuple[RecipeStage, ...]]:
    """The groups of some stages, with names that are unique among several recipes."""
    for group in recipe.groups:
        some = tuple(replace(stage, name=f"{prefix}.{stage.name}") for stage in group if stage.name in names)
        if some:
            yield some


def planned(asked: argparse.Namespace) -> Plan:
    """The runs of the command's arguments, one seed after the other, `default` first of each rate.

    Raises UserError for an arm that is none, and for a start that was made with other settings.
    """
    file, groups = _arms_file(), groups_of_arms()
    known = {name: arm for arms in groups.values() for name, arm in arms.items()}
    for name in asked.arms or ():
        if name not in (DEFAULT, *known):
            raise UserError("--arms", name, f"is none of {', '.join((DEFAULT, *known))}")
    chosen = asked.arms or [name for group in asked.groups for name in groups[group]]
    arms = [Arm(name=DEFAULT, start="train", settings=()), *(known[name] for name in chosen if name != DEFAULT)]
    common = (*(_setting(*pair) for pair in file["settings"].items()), *asked.settings)
    root = asked.output.absolute()
    runs, starts = [], {}
    for seed in asked.seeds:
        begin = Path(asked.start.replace("{seed}", str(seed))).absolute() if asked.start else root / f"start-{seed}"
        starts[seed] = load_recipe(find_recipe(RECIPE), [*common, f"seed={seed}", f"output={begin}"])
        if asked.start:
            _check_start(begin, starts[seed], [*file["settings"], "seed"])
        runs += [
            Run(arm=arm, seed=seed, rate=rate, root=root, begin=begin, common=common)
            for rate in asked.rates or (None,)
            for arm in arms
        ]
    return Plan(runs=tuple(runs), starts=starts, given=bool(asked.start))


def _check_start(folder: Path, recipe: Recipe, keys: Sequence[str]) -> None:
    record = read_record(folder)
    if record is None:
        raise UserError("--start", folder, "is no run of a recipe: give a finished run of the tiny recipe")
    for key in keys:
        if record.settings.get(key) != recipe.settings[key]:
            remedy = f"was made with {key}={record.settings.get(key)}, and the arms need {recipe.settings[key]}"
            raise UserError("--start", folder, f"{remedy}: give another run, or none")


def make(plan: Plan, console: Console) -> list[str]:
    """Do all runs; the names of those that failed. Ends the process when interrupted."""
    failed: list[str] = []

    def run(name: str, overrides: Sequence[str], stages: Sequence[str]) -> None:
        console.print(f"[{name}]", highlight=False, markup=False)
        code = run_recipe(find_recipe(RECIPE), overrides, console, Selection(only=tuple(stages)))
        if code == INTERRUPTED:
            sys.exit(INTERRUPTED)
        if code:
            failed.append(name)

    for seed in plan.starts:
        first = next(one for one in plan.runs if one.seed == seed)
        if not plan.given:
            run(f"start-{seed}", [*first.common, f"seed={seed}", f"output={first.begin}"], FIRST + TAUGHT)
        if f"start-{seed}" not in failed:
            for one in (one for one in plan.runs if one.seed == seed):
                run(one.name, one.overrides, one.stages)
    return failed


@dataclass(frozen=True, kw_only=True)
class Result:
    """The evaluations of a run that is done."""

    run: Run
    before: TableRow
    after: TableRow


def results(plan: Plan) -> list[Result]:
    """Of all runs that are done, with AES relative to the long chain of the same seed's base."""
    found = []
    for run in plan.runs:
        if missing(run.recipe, run.stages):
            continue
        begin = run.begin / "results"
        before = run.results(BEFORE_RL) if run.arm.start == "coldstart" else begin / f"{BEFORE_RL}.jsonl"
        _, first, last = load_rows([begin / f"{LONG_CHAIN}.jsonl", before, run.results(run.label)], LONG_CHAIN)
        found.append(Result(run=run, before=first, after=last))
    return found


FIGURES = {
    "accuracy %": (lambda row: 100 * row.summary.accuracy.value, 1),
    "tokens": (lambda row: row.summary.tokens.value, 1),
    "AES": (lambda row: row.score.value if row.score else None, 2),
    "rethink %": (lambda row: 100 * row.summary.rethink_rate, 1),
}
"""Heading -> figure of an evaluation, and the digits that are shown."""


def table(found: Sequence[Result]) -> tuple[Cells, list[dict[str, Any]]]:
    """A line for each arm, and the same with every seed's figure. Differences are from `default` at the same rate."""
    lines, content = [], []
    for name in dict.fromkeys(one.run.row for one in found):
        mine = [one for one in found if one.run.row == name]
        base = {one.run.seed: one for one in found if (one.run.arm.name, one.run.rate) == (DEFAULT, mine[0].run.rate)}
        rows = {"before RL": [one.before for one in mine], "": [one.after for one in mine]}
        if mine[0].run.arm.start == "train" and name.split(" at ")[0] != DEFAULT:
            # they all begin with the same pair
            del rows["before RL"]
        for kind, evaluated in rows.items():
            figures = {key: spread([value(row) for row in evaluated]) for key, (value, _) in FIGURES.items()}
            gains = _differences(mine, base) if not kind and mine[0].run.arm.name != DEFAULT else {}
            cells = [shown(figures[key], _text(digits)) for key, (_, digits) in FIGURES.items()]
            cells += [shown(gains.get(key), _text(FIGURES[key][1], signed=True)) for key in ("accuracy %", "tokens")]
            lines.append((f"{name}, {kind}" if kind else name, str(len(mine)), *cells))
            content.append(
                {
                    "arm": name,
                    "before_rl": bool(kind),
                    "seeds": [one.run.seed for one in mine],
                    "settings": list(mine[0].run.arm.settings),
                    **{key: _json(figure) for key, figure in figures.items()},
                    "differences": {key: _json(figure) for key, figure in gains.items()},
                }
            )
    headings = ("", "seeds", *FIGURES, "accuracy − default", "tokens − default")
    return Cells(headings=headings, lines=lines, names=1), content


def _differences(mine: Sequence[Result], base: Mapping[int, Result]) -> dict[str, Spread | None]:
    pairs = [(one.after, base[one.run.seed].after) for one in mine if one.run.seed in base]
    return {
        key: spread([value(own) - value(other) for own, other in pairs])
        for key, (value, _) in FIGURES.items()
        if key in ("accuracy %", "tokens")
    }


def _text(digits: int, *, signed: bool = False) -> Any:
    return lambda value: f"{value:{'+' if signed else ''}.{digits}f}"


def _json(figure: Spread | None) -> Any:
    return None if figure is None else figure.to_json()


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--groups", nargs="+", choices=list(_arms_file()["groups"]), default=["method"])
    chosen.add_argument("--arms", nargs="+", help="these alone, beside default, which is always run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rates", nargs="+", help="learning rates of RL, each with every arm; the recipe's by default")
    parser.add_argument("--start", help="finished runs to begin with, {seed} in place of the seed; made by default")
    parser.add_argument(
        "--list", action="store_true", help="say what is missing, and how long it takes; the table of what is done"
    )
    parser.add_argument("--dry-run", action="store_true", help="check every command of the first seed, run nothing")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="of the recipe, for all runs")
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str]) -> int:
    asked, console = parse(arguments), Console()
    plan = planned(asked)
    plan.listed(console)
    if asked.dry_run:
        wrong = plan.check(console)
        for line in wrong:
            console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
        return 2 if wrong else 0
    failed = [] if asked.list else make(plan, console)
    found = results(plan)
    if found:
        cells, content = table(found)
        text = cells_as_markdown(cells)
        write_json(asked.output / "ablation.json", content)
        write_text(asked.output / "ablation.md", text)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if failed:
        console.print(f"failed: {', '.join(failed)}", style="red", markup=False, highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"Error: {error}")
