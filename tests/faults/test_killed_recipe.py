"""The script that kills a recipe: a small recipe proves it, the tiny recipe is its slow case."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.killed import ATTEMPT, KINDS, Kill, differences, gaps_of, run_killed, run_to_end

from verl_longshort.recipe.recipe import find_recipe

# goes on behind the last whole line
JOURNAL = """
touch ${output}/NAME.jsonl
i=$(wc -l < ${output}/NAME.jsonl)
while [ $i -lt 15 ]; do sleep 0.1; i=$((i+1)); echo "{\\"item\\": $i}" >> ${output}/NAME.jsonl; done
"""
WEIGHTS = "sleep 0.3; cat ${output}/*.jsonl | sha256sum > ${output}/new; mv ${output}/new ${output}/model.safetensors"


def stage(name: str, script: str, output: str) -> dict[str, Any]:
    return {
        "name": name,
        "minutes": 0.01,
        "command": script.replace("NAME", name),
        "outputs": [f"${{output}}/{output}"],
    }


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    both = {"parallel": [stage("one", JOURNAL, "one.jsonl"), stage("two", JOURNAL, "two.jsonl")]}
    last = stage("last", "cat ${output}/model.safetensors > ${output}/table.txt", "table.txt")
    stages = [both, stage("weights", WEIGHTS, "model.safetensors"), last]
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({"output": str(tmp_path / "out"), "stages": stages}))
    return file


@pytest.mark.timeout(580)
def test_a_killed_recipe_ends_like_an_undisturbed_one(recipe: Path, tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    draw = random.Random(3)
    seconds = run_to_end(recipe, undisturbed, [], timeout_s=300)
    # the launcher's own start takes its time at every start
    gaps = [seconds * share for share in (0.4, 0.6, 0.8, 0.9)]
    kills = run_killed(recipe, killed, [], gaps=gaps, draw=draw, timeout_s=300)
    assert kills
    assert {each.kind for each in kills} <= set(KINDS)
    assert differences(undisturbed, killed, kills) == []
    assert sum(1 for _ in (killed / "one.jsonl").open()) == 15


def test_gaps_end_within_the_run() -> None:
    gaps = gaps_of(100, 20, random.Random(0))
    assert len(gaps) == 20
    assert all(gap >= 0 for gap in gaps)
    assert sum(gaps) < 100


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


WHOLE = {
    "model/weights.safetensors": "weights",
    "results/L0S0.jsonl": "a\nb\n",
    "pair/metrics.1.jsonl": "a\n",
    "logs/train.log": f"{ATTEMPT}2026-01-01 longshort train\nstep 1\n",
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"pair/metrics.1.jsonl": "a\na\n", "pair/metrics.2.jsonl": "a\n"}, []),
        ({"model/weights.safetensors": "others"}, ["model/weights.safetensors: another content"]),
        ({"more.safetensors": ""}, ["more.safetensors: only in killed"]),
        ({"results/L0S0.jsonl": "a\nb\nb\n"}, ["results/L0S0.jsonl: 2 lines undisturbed, 3 killed"]),
        ({"logs/train.log": f"{ATTEMPT}1\n{ATTEMPT}2\n"}, ["stage train was done and was started again"]),
        ({"logs/x.log": f"{ATTEMPT}1\n"}, ["stages: ['train'] undisturbed, ['train', 'x'] killed"]),
    ],
)
def test_what_differs_is_found(tmp_path: Path, changed: dict[str, str], said: list[str]) -> None:
    one, other = write(tmp_path / "one", WHOLE), write(tmp_path / "other", {**WHOLE, **changed})
    kill = Kill(after_s=1, kind=KINDS[0], running=(), done={"train": 1})
    assert differences(one, other, [kill]) == said


def test_nothing_to_compare_is_a_difference(tmp_path: Path) -> None:
    (line,) = differences(tmp_path, tmp_path, [])
    assert "nothing to compare" in line


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_the_tiny_recipe(tmp_path: Path) -> None:
    recipe, draw = find_recipe("tiny"), random.Random(0)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    seconds = run_to_end(recipe, undisturbed, [], timeout_s=2 * 3600)
    gaps = gaps_of(seconds, 20, draw)
    kills = run_killed(recipe, killed, [], gaps=gaps, draw=draw, timeout_s=2 * 3600)
    assert differences(undisturbed, killed, kills) == []
