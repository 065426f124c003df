"""Recipes that include another one, and running some of the stages."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.cli import main
from verl_longshort.recipe.launcher import run_recipe
from verl_longshort.recipe.recipe import Selection, load_recipe


def stage(name: str) -> dict[str, Any]:
    file = f"${{output}}/{name}.txt"
    return {"name": name, "minutes": 0.01, "command": f"echo ${{word}} >> {file}", "outputs": [file]}


@pytest.fixture
def write(tmp_path):
    def call(name: str, **content: Any) -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content))
        return path

    return call


@pytest.fixture
def recipe(write, tmp_path):
    stages = [stage("a"), {"parallel": [stage("b"), stage("c")]}, stage("d")]
    return write("recipe.yaml", output=str(tmp_path / "out"), word="hello", stages=stages)


def ran(tmp_path: Path) -> str:
    return "".join(sorted(path.stem for path in (tmp_path / "out").glob("*.txt")))


def run(path: Path, **selection: Any) -> str:
    text = io.StringIO()
    assert run_recipe(path, (), Console(file=text, width=200), Selection(**selection)) == 0
    return text.getvalue()


@pytest.mark.parametrize(
    ("selection", "stages"),
    [
        ({}, "abcd"),
        ({"only": ("b", "d")}, "bd"),
        ({"first": "b"}, "bcd"),
        ({"first": "d"}, "d"),
        ({"first": "b", "only": ("a", "c")}, "c"),
    ],
)
def test_only_these_stages_run(recipe, tmp_path, selection, stages):
    shown = run(recipe, **selection)
    assert ran(tmp_path) == stages
    assert ("Recipe done" in shown) == (stages == "abcd")


def test_a_stage_run_alone_is_done_in_a_whole_run(recipe, tmp_path):
    run(recipe, only=("b",))
    run(recipe)
    assert ran(tmp_path) == "abcd"
    assert (tmp_path / "out/b.txt").read_text() == "hello\n"


def test_an_unknown_stage_is_named(recipe, tmp_path):
    with pytest.raises(UserError, match=r"--only = x: no such stage; the stages are a, b, c, d"):
        run_recipe(recipe, selection=Selection(only=("x",)))
    with pytest.raises(UserError, match="--from = x"):
        run_recipe(recipe, selection=Selection(first="x"))
    assert not (tmp_path / "out").exists()


def test_what_a_recipe_says_wins_over_what_it_includes(write, tmp_path):
    write("common.yaml", output="?", word="low", other={"a": 1, "b": "${word}"}, stages=[stage("a")])
    path = write("model.yaml", include="common.yaml", output=str(tmp_path / "out"), word="high", other={"a": 2})
    plan = load_recipe(path, [])
    assert plan.stages[0].command[-1] == f"echo high >> {tmp_path}/out/a.txt"
    assert plan.settings["other"] == {"a": 2, "b": "high"}
    assert "include" not in plan.settings
    assert load_recipe(path, ["other.b=3"]).settings["other"]["b"] == 3


def test_an_include_that_cannot_be_used_is_named(write):
    with pytest.raises(UserError, match=r"include = nowhere\.yaml"):
        load_recipe(write("model.yaml", include="nowhere.yaml"), [])
    write("one.yaml", include="two.yaml")
    with pytest.raises(UserError, match=r"include = two\.yaml: in .*one\.yaml"):
        load_recipe(write("two.yaml", include="one.yaml"), [])


def test_a_key_that_is_null_can_be_set(write, tmp_path):
    path = write("recipe.yaml", output=str(tmp_path), word=None, stages=[stage("a")])
    assert load_recipe(path, ["word=x"]).settings["word"] == "x"
    with pytest.raises(UserError, match="wort = x: no such key"):
        load_recipe(path, ["wort=x"])


def test_the_command_takes_several_stages_and_plans_all(recipe, tmp_path):
    done = CliRunner().invoke(main, ["recipe", str(recipe), "--only", "a,b", "--only", "d"])
    assert (done.exit_code, ran(tmp_path)) == (0, "abd"), done.output
    refused = CliRunner().invoke(main, ["recipe", str(recipe), "--dry-run", "--only", "a"])
    assert refused.exit_code == 2
    assert "a plan is of all stages: leave out --only and --from" in refused.output
