"""The control of a pair through the real trainer: GRPO of one model with the group's reward."""

import sys
from pathlib import Path

import pytest
from helpers.harness import read_metrics, run_command
from longshort_reward.protocol import Role
from safetensors.torch import load_file

from verl_longshort.base.metrics_files import metrics_files
from verl_longshort.data.training_trajectories import read_steps

pytestmark = pytest.mark.integration

STEPS = 2
TIMEOUTS_S = {"transformers": 60, "vllm": 300}
"""Engine -> seconds without a finished answer; vLLM's first step takes long on a busy machine."""


def command(model: Path, rows: Path, run: Path, engine: str) -> list[str]:
    settings = [
        "device=cpu",
        f"actor_rollout_ref.rollout.name={engine}",
        f"longshort.model={model}",
        f"longshort.steps={STEPS}",
        # the short role's model is used to answering behind this opening
        "longshort.mode=direct",
        "longshort.token_budget=12",
        "longshort.reward.mu={start:0.2,end:0.2}",
        f"longshort.rollout_timeout_s={TIMEOUTS_S[engine]}",
        f"data.train_files={rows}",
        f"data.val_files={rows}",
        "data.train_batch_size=4",
        "data.max_prompt_length=16",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.actor.optim.lr=1e-3",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.temperature=1.0",
        "algorithm.filter_groups.enable=true",
        "algorithm.filter_groups.max_num_gen_batches=2",
        "trainer.val_before_train=false",
        f"trainer.save_freq={STEPS}",
        f"trainer.test_freq={STEPS}",
        f"trainer.default_local_dir={run}",
    ]
    return [sys.executable, "-m", "verl_longshort.cli", "train-single", *settings]


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_grpo_of_a_single_model(speakers: dict[Role, Path], tiny_rows: Path, tmp_path: Path, engine: str) -> None:
    model, run = speakers[Role.SHORT], tmp_path / "run"
    done = run_command(command(model, tiny_rows, run, engine), log=tmp_path / "log.txt", timeout_s=400)
    done.expect_success()
    (file,) = metrics_files(run)
    metrics = read_metrics(file)
    assert sorted(metrics) == [1, STEPS]
    for step in metrics.values():
        # what verl learned from is the group's reward, and its terms add up to it
        assert step["critic/score/mean"] == pytest.approx(step["single/reward/total"], abs=1e-5)
        terms = [step[f"single/reward/{term}"] for term in ("em", "fm", "lm")]
        assert step["single/reward/total"] == pytest.approx(terms[0] + 0.1 * terms[1] + 0.2 * terms[2])
        assert step["single/reward/em"] == step["single/accuracy"]
        # the opening tag is one of the answer's tokens and none of the response's
        assert step["single/tokens"] == pytest.approx(step["response_length/mean"] + 1)
        assert step["training/rollout_probs_diff_max"] <= 1e-4
        assert "actor/kl_loss" in step
        assert 4 <= step["training/filter_groups/generated"] <= 8
        assert step["training/filter_groups/unvarying"] == 0 or step["training/filter_groups/generated"] == 8
    assert any(step["actor/grad_norm"] > 0 for step in metrics.values())
    assert 0 <= metrics[STEPS]["val-core/tiny/acc/mean@1"] <= 1
    sampled = list(read_steps(run))
    assert len(sampled) == STEPS * 16
    for one in sampled:
        assert one.turns[0].role == "single"
        assert one.rewards["single"].advantage is not None
    first = [one.rewards["single"].total for one in sampled if one.step == 1]
    assert sum(first) / 16 == pytest.approx(metrics[1]["single/reward/total"])
    lines = done.output.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("step")] == [["step", f"{n}/{STEPS}"] for n in (1, 2)]
    exported = run / f"global_step_{STEPS}" / "actor" / "huggingface"
    before, after = (load_file(folder / "model.safetensors") for folder in (model, exported))
    assert any((before[name] != after[name]).any() for name in before)
    assert (exported / "tokenizer_config.json").exists()
    print(f"{done.seconds:.0f} s, {metrics[STEPS]}")
