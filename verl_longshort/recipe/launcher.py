"""Runs the stages of a recipe in order and says what went wrong.

`run_recipe` is the command `longshort recipe`. A stage that was done with the same command, after the same
stages, is skipped. Nothing of a stage outlives the launcher when that is interrupted; what a launcher that
was killed left running is ended when the stage is started again.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.lock import Lock, held
from verl_longshort.base.progress import clock
from verl_longshort.base.run_record import write_record
from verl_longshort.recipe.display import Display
from verl_longshort.recipe.recipe import GPUS_VARIABLE, Recipe, Selection, as_text, load_recipe
from verl_longshort.recipe.stage_process import StageProcess, Status

POLL_SECONDS = 0.25
TAIL_LINES = 25
FAILED, INTERRUPTED = 1, 130

Group = Sequence[StageProcess]


def run_recipe(
    path: Path, overrides: Sequence[str] = (), console: Console | None = None, selection: Selection | None = None
) -> int:
    """Run the recipe in `path`; 0 when all stages are done, 1 when one failed, 130 when interrupted.

    With a `selection`, its stages only. Raises UserError when the recipe cannot be used or another launcher
    is running it.
    """
    recipe = load_recipe(path, overrides)
    selected = (selection or Selection()).groups(recipe)
    console = console or Console()
    lock = Lock(file=recipe.output / ".lock", key="output", value=recipe.output, holder="another launcher")
    with held(lock), terminate_like_interrupt():
        write_record(
            recipe.output,
            recipe=path,
            overrides=overrides,
            settings=recipe.settings,
            stages={stage.name: as_text(stage.command) for stage in recipe.stages},
        )
        fingerprints = recipe.fingerprints()
        groups = [
            [
                StageProcess(
                    stage,
                    fingerprint=fingerprints[stage.name],
                    output=recipe.output,
                    environment={**recipe.environment, **_of_ours(stage.environment)},
                )
                for stage in group
            ]
            for group in selected
        ]
        return _run_groups(groups, recipe, console)


def _of_ours(environment: Mapping[str, str]) -> Mapping[str, str]:
    """A stage's variables with its GPUs counted among those that this process may use.

    Raises UserError when these are too few.
    """
    ours, wanted = os.environ.get(GPUS_VARIABLE), environment.get(GPUS_VARIABLE)
    if ours is None or wanted is None:
        return environment
    names, places = [name for name in ours.split(",") if name], [int(place) for place in wanted.split(",")]
    if names and max(places) >= len(names):
        remedy = f"names {len(names)} GPUs, and the recipe uses {max(places) + 1}: set gpu.count={len(names)}"
        raise UserError(GPUS_VARIABLE, ours, remedy)
    return {**environment, GPUS_VARIABLE: ",".join(names[place] for place in places) if names else ""}


def _run_groups(groups: Sequence[Group], recipe: Recipe, console: Console) -> int:
    begin = time.monotonic()
    whole = sum(map(len, groups)) == len(recipe.stages)
    try:
        with Display(groups, console) as display:
            done = all(_run_group(group, recipe, display) for group in groups)
    except KeyboardInterrupt:
        console.print("Interrupted; the same command continues where it stopped.", highlight=False)
        return INTERRUPTED
    if done:
        if recipe.show is not None and whole:
            _say(recipe.show.read_text(encoding="utf-8"), console)
        what = "Recipe" if whole else "Stages"
        _say(f"{what} done in {clock(time.monotonic() - begin)}; results in {recipe.output}", console)
        return 0
    for run in (run for group in groups for run in group if run.status is Status.FAILED):
        _say(f"\n{run.log_tail(TAIL_LINES)}", console)
        _say(f"Stage {run.stage.name} failed: {run.failure}. Its log: {run.log}", console, style="red")
    return FAILED


def _run_group(group: Group, recipe: Recipe, display: Display) -> bool:
    todo = [run for run in group if run.status is Status.WAITING]
    try:
        for run in todo:
            run.start()
        while any(run.status is Status.RUNNING for run in todo):
            display.update()
            time.sleep(POLL_SECONDS)
            if any(run.poll(recipe.stall_minutes * 60) is Status.FAILED for run in todo):
                break
    finally:
        for run in todo:
            run.end("ended by the launcher")
        display.update()
    return all(run.status is Status.DONE for run in group)


def _say(text: str, console: Console, style: str | None = None) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def terminate_like_interrupt() -> Iterator[None]:
    """SIGTERM ends the stages as Ctrl-C does; so does SIGINT, also where a shell had it ignored."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    try:
        sys.exit(run_recipe(Path(sys.argv[1]), sys.argv[2:]))
    except UserError as error:
        sys.exit(f"error: {error}")
