"""The examples that start a trainer, run as their user runs them."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from helpers.harness import read_metrics, run_command, sums

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_reward_in_a_stock_run(
    tiny_model: Path, tiny_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    small = [
        *("hydra.searchpath=[pkg://verl_longshort.config]", "+device=cpu", "actor_rollout_ref.rollout.n=2"),
        *("data.train_batch_size=8", "actor_rollout_ref.actor.ppo_mini_batch_size=8", "data.max_prompt_length=16"),
        *("data.max_response_length=12", "trainer.total_training_steps=1", "trainer.logger=[console,file]"),
        *("trainer.val_before_train=false", "trainer.save_freq=-1", "trainer.resume_mode=disable"),
        *(f"trainer.default_local_dir={tmp_path / 'checkpoints'}", f"hydra.run.dir={tmp_path / 'hydra'}"),
    ]
    run_command(
        ["bash", str(EXAMPLES / "stock_verl" / "run.sh"), str(tiny_model), str(tiny_rows), str(tiny_rows), *small],
        log=tmp_path / "log.txt",
        timeout_s=500,
        environment={"VERL_FILE_LOGGER_PATH": str(tmp_path / "metrics.jsonl")},
    ).expect_success()
    (step,) = read_metrics(tmp_path / "metrics.jsonl").values()
    assert 0 <= step["critic/score/mean"] <= 1.1
    assert step["actor/grad_norm"] >= 0


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed")
def test_the_reward_in_trl(tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    rows = [{"prompt": problem, "ground_truth": answer} for problem, answer in sums(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, str(EXAMPLES / "trl_grpo" / "train.py"), "--cpu", "--model", str(tiny_model)]
    command += ["--data", str(data), "--output", str(tmp_path / "out"), "--steps", "2", "--generations", "4"]
    done = run_command([*command, "--tokens", "8"], log=tmp_path / "log.txt", timeout_s=400).expect_success()
    assert "rewards/synergy/mean" in done.output
