"""The dry run of the controls of a finished tiny run: every command is composed, checked and accepted."""

import io
import json
from pathlib import Path

import pytest
from helpers.harness import write_model, write_rows
from helpers.run import write_evaluation
from rich.console import Console

from verl_longshort.planner.plan_recipe import plan_recipe

ROOT = Path(__file__).parents[2]
TURNS = [
    ("long", "<think> list a : 5 + 7 = 2 so a = 3 . </think>"),
    ("short", "<answer> so b </rethink>"),
    ("long", "<think> step b 9 + 3 = 2 . </think>"),
    ("short", "<answer> \\boxed{ 2 } </answer>"),
]


@pytest.fixture
def pair_run(tmp_path: Path) -> Path:
    """What a finished run of the tiny recipe has left, as far as the controls read it."""
    root = tmp_path / "tiny"
    problems = [(f"start {digit} ; a {digit} ?", str(2 * digit % 10)) for digit in range(10)] * 2
    (root / "world").mkdir(parents=True)
    for split in ("train", "val", "test"):
        write_rows(root / "world" / f"{split}.parquet", problems)
    write_model(root / "base", hidden=64)
    for role in ("long", "short"):
        write_model(root / f"pair/{role}/global_step_48/actor/huggingface", hidden=64)
    (root / "cold_start").mkdir()
    record = {"problem": "start 7 ; a ( 5 1 ) ; b 9 ?", "turns": [{"role": r, "text": text} for r, text in TURNS]}
    (root / "cold_start/train.jsonl").write_text((json.dumps(record) + "\n") * 20)
    for name in ("long-CoT", "direct", "L0S0", "L4S2"):
        write_evaluation(root, name)
    return root


@pytest.mark.integration
def test_every_control_is_accepted(pair_run: Path) -> None:
    text = io.StringIO()
    before = sorted(pair_run.rglob("*"))
    code = plan_recipe(ROOT / "recipes/controls.yaml", [f"pair_run={pair_run}"], Console(file=text, width=200))
    assert code == 0, text.getvalue()
    assert sorted(pair_run.rglob("*")) == before
    shown = " ".join(text.getvalue().split())
    for name in ("single-sft", "single-dler", "tied"):
        assert f"✓ {name}" in shown
