"""The dry run of a recipe: every stage's command is run to its checks, and the plan is printed.

Commands are shell scripts, so they are really run, one after the other, with `LONGSHORT_DRY_RUN` set
(`base/dry_run.py`) and with a folder of their own in place of the recipe's `output`: whatever a script itself writes
is thrown away. Below the recipe's `output` nothing is read or written.
"""

import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from verl_longshort.base.dry_run import VARIABLE, DryRun, absolute
from verl_longshort.base.requirements import Product
from verl_longshort.planner.checks import problems
from verl_longshort.planner.estimate import CheckedStage, estimate
from verl_longshort.planner.machine import Machine, detect_machine
from verl_longshort.planner.show import show
from verl_longshort.recipe.assumptions import Assumptions
from verl_longshort.recipe.launcher import INTERRUPTED, terminate_like_interrupt
from verl_longshort.recipe.recipe import Recipe, RecipeStage, load_recipe
from verl_longshort.recipe.stage_process import MARK_VARIABLE, end_marked, stage_environment

CANNOT_RUN = 2
STAGE_TIMEOUT_S = 1800.0
_ERROR = "error: "


def plan_recipe(
    path: Path, overrides: Sequence[str] = (), console: Console | None = None, *, at_scale: bool = False
) -> int:
    """Check all stages of the recipe in `path`, print the plan; 0 when it can run, 2 when it cannot.

    `at_scale`: with simulated steps of RL on more GPUs.

    130 when interrupted. Raises UserError when the recipe cannot be read.
    """
    console = console or Console()
    recipe = load_recipe(path, overrides)
    assumptions = Assumptions.of_recipe(recipe.settings)
    machine = detect_machine(recipe.output)
    try:
        with terminate_like_interrupt(), tempfile.TemporaryDirectory(prefix="longshort-dry-") as temporary:
            scratch = Path(temporary).resolve()
            moved = load_recipe(path, [*overrides, f"output={scratch / 'output'}"])
            checked = check_stages(moved, scratch, assumptions, machine, console)
            offline = moved.environment.get("HF_HUB_OFFLINE", "0") not in ("", "0")
            result = estimate(checked, assumptions, machine, offline=offline, at_scale=at_scale)
            against = problems(result)
            show(result, against, console, renamed=(str(scratch / "output"), str(recipe.output)))
    except KeyboardInterrupt:
        return INTERRUPTED
    return CANNOT_RUN if against else 0


def check_stages(
    recipe: Recipe, scratch: Path, assumptions: Assumptions, machine: Machine, console: Console
) -> list[CheckedStage]:
    """Run the commands of all stages in order; `recipe` writes below `scratch`."""
    gpus = assumptions.gpu_count or machine.planned_gpus
    products: list[Product] = []
    checked = []
    with console.status("checking") as status:
        for number, group in enumerate(recipe.groups):
            made: list[Product] = []
            for stage in group:
                status.update(f"checking {stage.name}")
                dry = DryRun.prepare(scratch / "plan" / stage.name, products=products, gpus_per_node=gpus)
                checked.append(_check(stage, number, recipe, dry))
                made += _products(checked[-1])
            # stages that run at the same time cannot read what the others write
            products += made
    return checked


def _check(stage: RecipeStage, group: int, recipe: Recipe, dry: DryRun) -> CheckedStage:
    for output in stage.outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
    # What a stage prints is only of interest when it fails.
    log = dry.folder / "log"
    mark = uuid.uuid4().hex
    own = {VARIABLE: str(dry.folder), "CUDA_VISIBLE_DEVICES": "", MARK_VARIABLE: mark}
    with log.open("w", encoding="utf-8") as stream:
        try:
            code = subprocess.run(
                stage.command,
                env={**stage_environment({**recipe.environment, **stage.environment}), **own},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=STAGE_TIMEOUT_S,
            ).returncode
            problem = _reason(log, code) if code else None
        except subprocess.TimeoutExpired:
            problem = f"its checks did not end within {STAGE_TIMEOUT_S:g} s"
        except OSError as error:
            problem = f"its command cannot be started: {error}"
        finally:
            end_marked(mark)
    return CheckedStage(stage=stage, group=group, needs=tuple(dry.reported()), problem=problem)


def _products(checked: CheckedStage) -> list[Product]:
    """What the commands said they write, and the outputs of the recipe about which none said anything."""
    reported = [product for needs in checked.needs for product in needs.products]
    paths = [Path(product.path) for product in reported]
    silent = [
        absolute(output)
        for output in checked.stage.outputs
        if not any(Path(absolute(output)) in (path, *path.parents) for path in paths)
    ]
    return [*reported, *(Product(path=path) for path in silent)]


def _reason(log: Path, code: int) -> str:
    """The last error in a command's output; its last line when there is none."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(_ERROR)]
    if errors:
        return errors[-1][len(_ERROR) :]
    return f"its command ended with status {code}: {lines[-1] if lines else 'no message'}"
