"""The command `longshort`. Commands are thin and import what they need when they run: help is instant."""

import sys
from pathlib import Path
from typing import Any

import click

from verl_longshort import __version__
from longshort_reward.errors import RunDiedError, UserError
from verl_longshort.llm.client import UnavailableError
from verl_longshort.base.dry_run import dry_run


class _Mistake(click.ClickException):
    exit_code = 2


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise _Mistake(str(error)) from error
        except (UnavailableError, RunDiedError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.pass_context
def main(context: click.Context) -> None:
    """Long⊗Short: two policies that solve problems together and spend fewer tokens."""
    if (dry := dry_run()) is not None:
        dry.refuse_unaware(str(context.invoked_subcommand))


@main.command()
@click.option("--ray/--no-ray", default=True, show_default=True, help="Also look into a Ray worker.")
def doctor(ray: bool) -> None:
    """Say what is installed and registered, and what is wrong; exits with 1 when something is."""
    from rich.console import Console

    from verl_longshort.verl_plugin.doctor import diagnose, render

    console = Console()
    with console.status("looking around"):
        diagnosis = diagnose(use_ray=ray)
    render(diagnosis, console)
    if diagnosis.problems:
        raise SystemExit(1)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def train(overrides: tuple[str, ...]) -> None:
    """Train the pair by rounds of reinforcement learning (config/longshort_trainer.yaml)."""
    from verl_longshort.verl_plugin.trainer.launch import train as run

    run(overrides)


@main.command("train-single", context_settings={"ignore_unknown_options": True})
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def train_single(overrides: tuple[str, ...]) -> None:
    """Train one model that answers alone, the control of a pair (config/single_trainer.yaml)."""
    from verl_longshort.verl_plugin.trainer.single_run import train_single as run

    run(overrides)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def sft(overrides: tuple[str, ...]) -> None:
    """Fine-tune one role on joint trajectories (config/sft.yaml)."""
    from verl_longshort.verl_plugin.trainer.sft import fine_tune

    fine_tune(overrides)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--dry-run", "plan_only", is_flag=True, envvar="DRY_RUN", help="Only check, and show the plan.")
@click.option("--only", default="", metavar="STAGE[,STAGE]", help="Run these stages alone.")
@click.option("--from", "first", metavar="STAGE", help="Begin with this stage.")
def recipe(
    file: Path, overrides: tuple[str, ...], plan_only: bool, only: str, first: str | None
) -> None:
    """Run the stages of a recipe; what is done already is skipped."""
    from verl_longshort.planner.plan_recipe import plan_recipe
    from verl_longshort.recipe.launcher import run_recipe
    from verl_longshort.recipe.plan import Selection

    if plan_only:
        raise SystemExit(plan_recipe(file, overrides))
    selection = Selection(only=tuple(name for name in only.split(",") if name), first=first)
    raise SystemExit(run_recipe(file, overrides, selection=selection))


@main.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--seed", type=int, default=0, show_default=True)
def world(out: Path, seed: int) -> None:
    """Write the problems of the miniature world."""
    from verl_longshort.world.make_world import Sizes, make_world

    if (dry := dry_run()) is not None:
        from verl_longshort.recipe.stage_needs import world_needs

        dry.finish(world_needs(out, Sizes()))
    make_world(out, seed)


@main.command("tiny-base")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--seed", type=int, default=0, show_default=True)
def tiny_base(out: Path, seed: int) -> None:
    """Train the base model of the miniature world from scratch."""
    from verl_longshort.world.tiny_model import train_base

    if (dry := dry_run()) is not None:
        from verl_longshort.recipe.stage_needs import tiny_base_needs

        dry.finish(tiny_base_needs(out))
    train_base(out, seed=seed)


@main.group()
def prepare() -> None:
    """Fetch and check problems and chains of thought."""


@prepare.command("problems", context_settings={"ignore_unknown_options": True})
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def prepare_problems(overrides: tuple[str, ...]) -> None:
    """Problems for RL, apart from those of the tests (config/prepare_problems.yaml)."""
    from rich.console import Console

    from verl_longshort.data.prepare_problems import prepare_problems as run

    run(overrides, Console())


@prepare.command("chains", context_settings={"ignore_unknown_options": True})
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def prepare_chains(overrides: tuple[str, ...]) -> None:
    """Problems with right chains of thought, from a file or a model (config/prepare_chains.yaml)."""
    from rich.console import Console

    from verl_longshort.data.prepare_chains import prepare_chains as run

    run(overrides, Console())


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def chunk(overrides: tuple[str, ...]) -> None:
    """Cut long chains of thought into thoughts (config/chunk.yaml)."""
    from rich.console import Console

    from verl_longshort.data.chunk import chunk as run

    run(overrides, Console())


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def weigh(overrides: tuple[str, ...]) -> None:
    """Weigh thoughts by rollouts of a base model from every prefix (config/weigh.yaml)."""
    from rich.console import Console

    from verl_longshort.data.weigh import weigh as run

    run(overrides, Console())


@main.command("importance-report")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--rule", default="m", show_default=True, help="What chooses the thoughts that stay long.")
@click.option("--examples", default=20, show_default=True, help="Chains that can be read in the page.")
@click.option("--seed", default=0, show_default=True, help="Draws these chains.")
def importance_report(files: tuple[Path, ...], out: Path, rule: str, examples: int, seed: int) -> None:
    """Show how much thoughts matter: figures and a page to read weighed chains (.jsonl files) in."""
    from rich.console import Console

    from verl_longshort.report.importance.run import importance_report as run

    if (dry := dry_run()) is not None:
        from verl_longshort.recipe.stage_needs import report_needs

        dry.finish(report_needs("importance-report", files, out))
    run(files, out=out, rule=rule, count=examples, seed=seed, console=Console())


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def coldstart(overrides: tuple[str, ...]) -> None:
    """Make joint trajectories for SFT from weighed thoughts (config/coldstart.yaml)."""
    from rich.console import Console

    from verl_longshort.data.synthesis import coldstart as run

    run(overrides, Console())


@main.command("eval", context_settings={"ignore_unknown_options": True})
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def evaluate(overrides: tuple[str, ...]) -> None:
    """Evaluate a pair or a single model on benchmarks (config/eval.yaml)."""
    from verl_longshort.evaluation.runner import evaluate as run

    summary = run(overrides)
    click.echo(
        f"{summary.name}: accuracy {summary.accuracy.value:.1%}, {summary.tokens.value:.1f} tokens, "
        f"{summary.problems} problems"
    )


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--base", help="Row that AES is relative to; the first by default.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Also write the table as Markdown.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the table as JSON.")
@click.option("--details", is_flag=True, help="Also show all figures, on each benchmark.")
def table(
    files: tuple[Path, ...], base: str | None, markdown: Path | None, json_file: Path | None, details: bool
) -> None:
    """Show evaluations (their .jsonl files) as one table."""
    from rich.console import Console

    from verl_longshort.evaluation.table import report

    if (dry := dry_run()) is not None:
        from verl_longshort.recipe.stage_needs import table_needs

        dry.finish(table_needs(files, (markdown, json_file)))
    # Rich takes 80 columns for a file, and the table needs a few more.
    console = Console() if sys.stdout.isatty() else Console(width=240 if details else 120)
    report(
        files, base=base, markdown=markdown, json_file=json_file, console=console, detailed=details
    )


@main.command()
@click.argument("folders", nargs=-1, required=True, metavar="RUN_DIR...", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="HTML file to write.")
@click.option("--base", help="Evaluation that AES is relative to; the long chain of thought by default.")
@click.option(
    "--trajectories", type=int, default=3000, show_default=True, help="At most so many in the viewer."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which trajectories.")
def report(folders: tuple[Path, ...], out: Path, base: str | None, trajectories: int, seed: int) -> None:
    """Write one HTML file about one or several runs (their output folders)."""
    from verl_longshort.report.report import report as run

    if (dry := dry_run()) is not None:
        from verl_longshort.recipe.stage_needs import report_needs

        dry.finish(report_needs("report", folders, out))
    run(folders, out=out, base=base, trajectories=trajectories, seed=seed)
    click.echo(f"Wrote {out}")


if __name__ == "__main__":
    main()
