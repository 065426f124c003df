"""One shape for every command: the registry, the command line made from it, and who decides what is run."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from longshort_reward.errors import UserError

from verl_longshort import stages
from verl_longshort.base import dry_run, progress
from verl_longshort.base.stage import execute
from verl_longshort.cli import main
from verl_longshort.stages import all_stages, stage_modules, stage_of

COMMANDS = {
    *(
        "world",
        "tiny-base",
        "pretrained",
        "prose-base",
        "prepare problems",
        "prepare chains",
        "chunk",
        "weigh",
        "coldstart",
        "sft",
    ),
    *("train", "train-single", "eval", "table", "published", "report", "importance-report", "serve"),
}

A_STAGE = '''
    """`longshort shout`."""

    from pathlib import Path

    import click
    from longshort_reward.settings import PositiveInt, Settings

    from verl_longshort.base.progress import report
    from verl_longshort.base.requirements import Product, Requirements
    from verl_longshort.base.stage import OptionStage


    class ShoutSettings(Settings):
        out: Path
        times: PositiveInt


    class ShoutStage(OptionStage[ShoutSettings, None]):
        """Shout into a file."""

        name = "shout"
        Settings = ShoutSettings
        parameters = (
            click.Option(["--out"], type=click.Path(path_type=Path), required=True),
            click.Option(["--times"], type=int, default=1),
        )

        def requirements(self, settings, inputs):
            return Requirements(command=self.name, products=(Product(path=str(settings.out)),))

        def run(self, settings, inputs, console):
            report(1, 1, "shouting")
            settings.out.write_text("ha" * settings.times)
            console.print("done")
'''


def test_every_command_is_there_and_has_a_help_text() -> None:
    assert all_stages().keys() >= COMMANDS
    for name in all_stages():
        result = CliRunner().invoke(main, [*name.split(), "--help"])
        assert result.exit_code == 0, result.output
        assert type(all_stages()[name]).__doc__ in " ".join(result.output.split())


def find_anew() -> None:
    stage_modules.cache_clear()
    stage_of.cache_clear()


@pytest.fixture
def shout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stage of one more file."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "shout.py").write_text(textwrap.dedent(A_STAGE))
    monkeypatch.setattr(stages, "__path__", [*stages.__path__, str(tmp_path / "more")])
    find_anew()
    yield all_stages()["shout"]
    find_anew()
    sys.modules.pop("verl_longshort.stages.shout", None)


def test_a_new_stage_is_one_file(shout: Any, tmp_path: Path) -> None:
    execute(shout, out=tmp_path / "out", times=2)
    assert (tmp_path / "out").read_text() == "haha"


def test_options_are_checked(shout: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--times = 0: must be a whole number from 1 on"):
        execute(shout, out=tmp_path / "out", times=0)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_asks_and_runs_nothing(shout: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dry = dry_run.DryRun.prepare(tmp_path / "dry", products=[], gpus_per_node=0)
    monkeypatch.setenv(dry_run.VARIABLE, str(dry.folder))
    with pytest.raises(SystemExit) as ended:
        execute(shout, out=tmp_path / "out", times=2)
    assert ended.value.code == 0
    assert not (tmp_path / "out").exists()
    (requirements,) = dry.reported()
    assert [product.path for product in requirements.products] == [str(tmp_path / "out")]


def test_a_recipe_shows_the_progress_of_its_stages(shout: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "progress.json"))
    execute(shout, out=tmp_path / "out", times=1)
    assert json.loads((tmp_path / "progress.json").read_text())["message"] == "shouting"


def test_a_module_without_a_stage_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.py").write_text("")
    monkeypatch.setattr(stages, "__path__", [str(tmp_path)])
    find_anew()
    with pytest.raises(RuntimeError, match="must define one Stage and defines 0"):
        all_stages()
    find_anew()


def test_a_stage_has_the_name_of_its_module(shout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(shout), "name", "whisper")
    stage_of.cache_clear()
    with pytest.raises(RuntimeError, match="must define the stage 'shout' and defines 'whisper'"):
        all_stages()


def test_the_command_line_offers_a_new_stage(shout: Any) -> None:
    assert "shout" in main.list_commands(click.Context(main))
    assert "chains" in CliRunner().invoke(main, ["prepare", "--help"]).output
    assert CliRunner().invoke(main, ["prepare chains"]).exit_code == 2


@pytest.mark.parametrize(
    ("program", "loads"),
    [
        ("import verl_longshort.cli as cli", ""),
        # a command loads its own module, and what that needs
        ("import verl_longshort.cli as cli; cli.main.get_command(None, 'table')", "numpy stages.table"),
        ("import verl_longshort.recipe.launcher", ""),
    ],
)
def test_the_command_line_starts_without_heavy_packages(program: str, loads: str) -> None:
    heavy = ("torch", "scipy", "pandas", "matplotlib", "transformers", "verl", "ray", "numpy", "hydra", "httpx")
    own = "[name.removeprefix('verl_longshort.') for name in sys.modules if name.startswith('verl_longshort.stages.')]"
    code = f"{program}; import sys; print(*(name for name in {heavy} if name in sys.modules), *{own})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == loads.split()
