"""The command `longshort`: one command for each stage of the registry, and the few that are no stages."""

import errno
from typing import Any

import click
from longshort_reward.errors import UserError

from verl_longshort import __version__
from verl_longshort.base.dry_run import dry_run
from verl_longshort.base.errors import RunDiedError, RunStoppedError, UnavailableError
from verl_longshort.base.stage import Stage, TrainingStage, execute
from verl_longshort.stages import GROUPS, stage_modules, stage_of

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class _Mistake(click.ClickException):
    exit_code = 2


class _Stopped(click.ClickException):
    exit_code = 143  # as a shell gives it for SIGTERM


class _Stages(click.Group):
    """The stages of a group, of which only the one that is called is imported."""

    prefix = ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = (name.removeprefix(self.prefix) for name in stage_modules() if name.startswith(self.prefix))
        return sorted({*super().list_commands(ctx), *(name for name in names if " " not in name)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in self.list_commands(ctx):
            return own
        return _command(stage_of(self.prefix + cmd_name), cmd_name)


class _Group(_Stages):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise _Mistake(str(error)) from error
        except RunStoppedError as error:
            raise _Stopped(str(error)) from error
        except (UnavailableError, RunDiedError) as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            said = ": ".join(str(part) for part in (error.filename, error.strerror) if part)
            remedy = "make room, or the folder writable, and give the same command again: what is done is kept"
            raise click.ClickException(f"{said}; {remedy}") from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.pass_context
def main(context: click.Context) -> None:
    """Long⊗Short: two policies that solve problems together and spend fewer tokens."""
    command = str(context.invoked_subcommand)
    if (dry := dry_run()) is not None and command not in {name.split()[0] for name in stage_modules()}:
        dry.refuse(command)


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


@main.command()
@click.argument("recipe", metavar="RECIPE")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--dry-run", "plan_only", is_flag=True, envvar="DRY_RUN", help="Only check, and show the plan.")
@click.option("--at-scale", is_flag=True, help="The plan, with simulated steps of RL on 8, 64 and 512 GPUs.")
@click.option("--only", multiple=True, metavar="STAGE[,STAGE]", help="Run these stages alone.")
@click.option("--from", "first", metavar="STAGE", help="Begin with this stage.")
def recipe(
    recipe: str, overrides: tuple[str, ...], plan_only: bool, at_scale: bool, only: tuple[str, ...], first: str | None
) -> None:
    """Run the stages of a recipe; what is done already is skipped.

    RECIPE is a YAML file, or the name of a recipe that ships with the package: tiny, qwen7b, llama8b, and the controls
    of each.
    """
    from verl_longshort.planner.plan_recipe import plan_recipe
    from verl_longshort.recipe.launcher import run_recipe
    from verl_longshort.recipe.recipe import Selection, find_recipe

    file = find_recipe(recipe)
    selection = Selection(only=tuple(name for part in only for name in part.split(",") if name), first=first)
    if plan_only or at_scale:
        if selection != Selection():
            raise click.UsageError("a plan is of all stages: leave out --only and --from")
        raise SystemExit(plan_recipe(file, overrides, at_scale=at_scale))
    raise SystemExit(run_recipe(file, overrides, selection=selection))


def _command(stage: Stage[Any, Any], name: str) -> click.Command:
    def run(**arguments: Any) -> None:
        if not isinstance(stage, TrainingStage):
            execute(stage, **arguments)
            return
        from verl_longshort.planner.host import warn_of_memory

        execute(stage, look=warn_of_memory, **arguments)

    return click.Command(
        name,
        callback=run,
        params=list(stage.parameters),
        help=type(stage).__doc__,
        context_settings={"ignore_unknown_options": "overrides" in [p.name for p in stage.parameters]},
    )


for _name, _text in GROUPS.items():
    _group = _Stages(_name, help=_text)
    _group.prefix = f"{_name} "
    main.add_command(_group)

if __name__ == "__main__":
    main()
