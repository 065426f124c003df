"""The recipe at the paper's scale, all its stages for real: `longshort recipe qwen7b device=cpu ...` on small models.

The models solve next to nothing. What is tested is that a stage takes what the one before it has written, that the dry
run of the same command foresees it, and that table and report can be made of it.
"""

import json
import re
import sys
from dataclasses import dataclass
from html import unescape
from io import StringIO
from pathlib import Path

import pytest
from helpers.harness import run_command
from helpers.llm_server import serve
from helpers.paper_inputs import CHAINS, RL, arguments, respond, write_files, write_models
from longshort_reward.protocol import ROLES
from rich.console import Console

from verl_longshort.base.files import read_records
from verl_longshort.base.requirements import Product
from verl_longshort.planner.machine import detect_machine
from verl_longshort.planner.plan_recipe import check_stages
from verl_longshort.recipe.assumptions import Assumptions
from verl_longshort.recipe.recipe import load_recipe

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

RECIPE = Path(__file__).parents[2] / "recipes/qwen7b.yaml"
ROUNDS = ("L1S0", "L2S0", "L2S1", "L3S1", "L3S2", "L4S2")
ROWS = ["long-CoT", "base", "L0S0", *ROUNDS]


@dataclass(frozen=True)
class Done:
    """What the dry run said, and what the recipe then did."""

    planned: dict[str, list[Product]]
    """Files by stage, in the stages' order."""
    problems: list[str]
    output: Path
    shown: str
    again: str
    """What the same command says when all is done."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("paper")
    write_files(folder)
    write_models(folder)
    with serve(respond) as endpoint:
        given = arguments(folder, endpoint.url)
        output = folder / "out"
        recipe = load_recipe(RECIPE, given)
        assumptions = Assumptions.of_recipe(recipe.settings)
        console = Console(file=StringIO())
        checked = check_stages(recipe, folder / "dry", assumptions, detect_machine(folder), console)
        command = [sys.executable, "-m", "verl_longshort.cli", "recipe", str(RECIPE), *given]
        first = run_command(command, log=folder / "log", timeout_s=1500).expect_success()
        second = run_command(command, log=folder / "log2", timeout_s=120).expect_success()
    return Done(
        planned={one.stage.name: [product for needs in one.needs for product in needs.products] for one in checked},
        problems=[one.problem for one in checked if one.problem is not None],
        output=output,
        shown=first.output,
        again=second.output,
    )


def test_the_dry_run_has_nothing_against_it(done: Done) -> None:
    assert done.problems == []


def test_the_stages_run_in_the_order_of_the_plan(done: Done) -> None:
    assert re.findall(r"^(\S+) done in", done.shown, flags=re.MULTILINE) == [*done.planned, "Recipe"]


def test_the_planned_files_are_there(done: Done) -> None:
    missing = [one.path for products in done.planned.values() for one in products if not Path(one.path).exists()]
    assert missing == []


def test_the_planned_numbers_of_records_are_right(done: Done) -> None:
    counts = {
        Path(product.path): product.records
        for stage, products in done.planned.items()
        for product in products
        # a hash divides the cold start, not a count; an evaluation's file begins with its header
        if product.records is not None and stage != "coldstart"
    }
    header = {path: 1 if path.parent.name == "results" else 0 for path in counts}
    found = {path: len(read_records(path, key="", columns=())) - header[path] for path in counts}
    assert found == counts
    assert counts[done.output / "problems/train.parquet"] == len(RL) - 2
    assert counts[done.output / "chains.jsonl"] == len(CHAINS)


def test_the_same_command_finds_all_done(done: Done) -> None:
    assert "running" not in done.again
    assert "Recipe done in" in done.again


def test_every_round_has_its_learner_and_something_is_learnt(done: Done) -> None:
    steps = [json.loads(line)["data"] for line in (done.output / "pair/metrics.0.jsonl").read_text().splitlines()][1:]
    learners = [str(role) for step in steps for role in ROLES if f"{role}/own_tokens" in step]
    assert learners == ["long", "long", "short", "long", "short", "long"]
    # a group whose rewards are all the same teaches nothing
    assert any(step.get(f"{role}/actor/grad_norm", 0) > 0 for step in steps for role in ROLES)


def test_the_table_compares_all_rows(done: Done) -> None:
    rows = json.loads((done.output / "table.json").read_text())
    assert [row["name"] for row in rows] == ROWS
    scores = {row["name"]: row["aes"]["value"] for row in rows}
    assert scores["long-CoT"] == 0
    assert all(scores[name] < 0 for name in ROWS[1:]), "it alone solves something, and in the fewest tokens"
    assert "AES relative to long-CoT" in (done.output / "table.txt").read_text()


def test_the_report_has_aes_relative_to_the_long_chain(done: Done) -> None:
    page = unescape(re.sub(r"<[^>]+>", " ", (done.output / "report.html").read_text()))
    assert "AES: accuracy-efficiency score relative to long-CoT" in " ".join(page.split())
    assert all(name in page for name in ROWS)
