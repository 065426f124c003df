"""The small recipe without the Hub, all its stages for real: `longshort recipe small_cpu` on a random model.

The model solves nothing. What is tested is that every stage takes what the one before it has written, from the world's
problems to table and report.
"""

import json
import re
import sys
from pathlib import Path

import pytest
from helpers.harness import run_command
from helpers.paper_inputs import write_models

from verl_longshort.base.files import read_records
from verl_longshort.recipe.recipe import load_recipe

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

RECIPE = Path(__file__).parents[2] / "recipes/small_cpu.yaml"
ROWS = ["long-CoT", "base", "L0S0", "L1S0", "L1S1"]
NUMBERS = [
    "environment.OMP_NUM_THREADS=1",
    "base_rows=32",
    "data.val_problems=2",
    "data.chain_count=16",
    "weigh_samples=3",
    "weigh_tokens=16",
    # the tokenizer of the random model knows few words, so texts are long
    "limits=[longshort.environment.max_turns=4,longshort.environment.long_turn_tokens=640,"
    "longshort.environment.short_turn_tokens=320,longshort.environment.token_budget=1400]",
    "problem_tokens=256",
    "prompt_tokens=1536",
    "response_tokens=1800",
    "memory.update_tokens=4096",
    "memory.sft_tokens=8192",
    "sft.max_tokens=4000",
    "sft.batch=4",
    "sft.epochs=1",
    "rl.batch=2",
    "rl.group=2",
    "rl.steps_per_round=1",
    "evaluation.limit=2",
    "evaluation.single_tokens=32",
    "evaluation.base_tokens=32",
]


def test_the_recipe_runs_from_the_first_stage_to_the_last(tmp_path: Path) -> None:
    write_models(tmp_path)
    output = tmp_path / "out"
    given = [f"output={output}", f"model.pretrained={tmp_path}/base", *NUMBERS]
    command = [sys.executable, "-m", "verl_longshort.cli", "recipe", str(RECIPE), *given]
    shown = run_command(command, log=tmp_path / "log", timeout_s=1500).expect_success().output
    stages = [stage.name for stage in load_recipe(RECIPE, given).stages]
    assert {*re.findall(r"^(\S+) done in", shown, flags=re.MULTILINE)} == {*stages, "Recipe"}
    assert [row["name"] for row in json.loads((output / "table.json").read_text())] == ROWS
    weighed = read_records(output / "weighed.jsonl", key="", columns=())
    assert len(weighed) == 16
    assert all(
        [label["text"] for label in record["labels"]] == [thought["text"] for thought in record["thoughts"]]
        for record in weighed
    )
    assert (output / "report.html").is_file()
