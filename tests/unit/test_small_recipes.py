"""The recipes of a small pretrained model: their stages, commands that compose, and the script that chooses one."""

import subprocess
from pathlib import Path

import pytest

from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import plain_dict, settings_of
from verl_longshort.data.chunk import ChunkSettings
from verl_longshort.data.synthesis import SynthesisSettings
from verl_longshort.recipe.recipe import Recipe, RecipeStage, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
BEFORE = ["pretrained", "world", "base"]


@pytest.fixture(autouse=True)
def everything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model, and every file of an earlier stage."""
    monkeypatch.setattr("verl_longshort.base.files.check_model", lambda *_, **__: None)


def recipe(name: str, *overrides: str) -> Recipe:
    return load_recipe(RECIPES / f"{name}.yaml", overrides)


def stage(of: Recipe, name: str) -> RecipeStage:
    return next(each for each in of.stages if each.name == name)


def block(of: Recipe, name: str, config: str) -> dict[str, object]:
    found: dict[str, object] = plain_dict(compose_config(config, stage(of, name).command[2:]).longshort)
    return found


def without_rounds(of: Recipe) -> list[str]:
    return [each.name for each in of.stages if not each.name.startswith(("evaluate-L1", "evaluate-L2"))]


def test_the_stages_are_those_of_the_large_recipe() -> None:
    large = [name for name in without_rounds(recipe("qwen7b")) if not name.startswith(("evaluate-L3", "evaluate-L4"))]
    assert without_rounds(recipe("small")) == large
    assert without_rounds(recipe("small_cpu")) == BEFORE + large


@pytest.mark.parametrize("name", ["small", "small_cpu"])
def test_every_command_composes(name: str) -> None:
    small = recipe(name)
    chunk = ChunkSettings.parse(block(small, "chunk", "chunk"))
    assert (chunk.method, chunk.llm) == ("rules", None)
    assert SynthesisSettings.parse(block(small, "coldstart", "coldstart")).rule == small.settings["rule"]
    for evaluation in (each for each in small.stages if each.name.startswith("evaluate")):
        assert compose_config("eval", evaluation.command[2:])
    for role in ("long", "short"):
        assert compose_config("sft", stage(small, f"sft-{role}").command[2:]).longshort.role == role
    trained = compose_config("longshort_trainer", stage(small, "train").command[2:], unused=("reward.reward_model",))
    assert settings_of(trained).limits.token_budget < trained.data.max_response_length


def test_the_prompts_are_the_packages_own() -> None:
    for name in ("small", "small_cpu"):
        assert not any("prompts" in word for each in recipe(name).stages for word in each.command)


def test_without_the_hub_nothing_is_read_that_the_recipe_does_not_write() -> None:
    words = [word for each in recipe("small_cpu").stages for word in each.command]
    assert not [word for word in words if "Qwen" in word and "longshort.llm" not in word]
    assert stage(recipe("small_cpu"), "base").command[:2] == ("longshort", "prose-base")
    settings = block(recipe("small_cpu"), "evaluate-base", "eval")
    assert settings["benchmarks"] == []
    assert settings["mode"] == "plain"
    assert block(recipe("small_cpu"), "evaluate-long-cot", "eval")["mode"] == "long_cot"


def test_the_base_is_asked_as_it_was_taught() -> None:
    joining = block(recipe("small_cpu"), "weigh", "weigh")["joining"]
    assert joining == {"direct": "<answer>", "open": "<think> ", "close": " </think> <answer>", "stop": "</answer>"}


@pytest.mark.parametrize(
    ("gpu", "given", "expected"),
    [
        (True, ["seed=1"], "small seed=1"),
        (True, ["model=Qwen/Qwen3-0.6B", "--dry-run"], "small model.base=Qwen/Qwen3-0.6B --dry-run"),
        (True, ["seed=1", "model=smollm2"], "small_cpu seed=1 model.pretrained=smollm2"),
        (False, [], "small_cpu"),
        (False, ["model=/models/a b"], "small_cpu model.pretrained=/models/a b"),
    ],
)
def test_the_script_chooses_the_recipe(gpu: bool, given: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "run_small.sh").write_text((RECIPES / "run_small.sh").read_text())
    (tmp_path / "run.sh").write_text('echo "$*"\n')
    tool = tmp_path / "bin/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\nexit {0 if gpu else 1}\n")
    tool.chmod(0o755)
    environment = {"PATH": f"{tool.parent}:/usr/bin:/bin"}
    command = ["bash", str(tmp_path / "run_small.sh"), *given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_stages_can_be_put_before_others(tmp_path: Path) -> None:
    one = "{name: %s, minutes: 1, command: [a], outputs: [o/%s]}"
    text = f"output: o\nfirst: []\nstages:\n  - ${{first}}\n  - {one % ('last', 'last')}\n"
    (tmp_path / "a.yaml").write_text(text)
    more = f"include: a.yaml\nfirst:\n  - parallel: [{one % ('x', 'x')}, {one % ('y', 'y')}]\n  - {one % ('z', 'z')}\n"
    (tmp_path / "b.yaml").write_text(more)
    groups = [[each.name for each in group] for group in load_recipe(tmp_path / "b.yaml", []).groups]
    assert groups == [["x", "y"], ["z"], ["last"]]
    assert [each.name for each in load_recipe(tmp_path / "a.yaml", []).stages] == ["last"]
