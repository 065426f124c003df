"""verl's own trainer, unchanged, on a CPU: our platform, engines, rollout and reward under it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.harness import Finished, read_metrics, run_command
from safetensors.torch import load_file

pytestmark = pytest.mark.integration

LOG_PROB_TOLERANCE = 1e-4
STEPS = 2
COMMON = (
    "hydra.searchpath=[pkg://verl_longshort.config]",
    "+device=cpu",
    "data.train_batch_size=8",
    "data.max_prompt_length=16",
    "data.max_response_length=12",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.actor.optim.lr=1e-3",
    # A random model may never be right; the entropy bonus gives it a gradient all the same.
    "actor_rollout_ref.actor.optim.weight_decay=0",
    "actor_rollout_ref.actor.entropy_coeff=0.01",
    "actor_rollout_ref.actor.checkpoint.save_contents=[model,hf_model]",
    "reward.custom_reward_function.path=pkg://longshort_reward",
    "reward.custom_reward_function.name=compute_score",
    "trainer.logger=[console,file]",
    "trainer.val_before_train=false",
    "trainer.resume_mode=disable",
    f"trainer.total_training_steps={STEPS}",
    f"trainer.save_freq={STEPS}",
    f"trainer.test_freq={STEPS}",
)
WITH_CRITIC = (
    "algorithm.adv_estimator=gae",
    "actor_rollout_ref.actor.use_kl_loss=true",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8",
    "critic.ppo_micro_batch_size_per_gpu=8",
    "critic.optim.lr=1e-3",
    "trainer.n_gpus_per_node=2",
)


def train(model: Path, rows: Path, work: Path, *overrides: str) -> Finished:
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *COMMON]
    command += [f"actor_rollout_ref.model.path={model}", f"critic.model.path={model}"]
    command += [f"critic.model.tokenizer_path={model}", f"data.train_files={rows}", f"data.val_files={rows}"]
    command += [
        f"trainer.default_local_dir={work / 'checkpoints'}",
        f"hydra.run.dir={work / 'hydra'}",
        *overrides,
    ]
    return run_command(
        command,
        log=work / "log.txt",
        timeout_s=400,
        environment={"VERL_FILE_LOGGER_PATH": str(work / "metrics.jsonl")},
    ).expect_success()


def log_prob_difference(step: dict[str, Any]) -> float:
    """Rollout against actor: the largest difference of a token's probability or of a row's mean log-prob."""
    rows = (abs(step[f"rollout_corr/log_ppl_diff_{end}"]) for end in ("min", "max"))
    return float(max(step["training/rollout_probs_diff_max"], *rows))


def changed(before: Path, after: Path) -> float:
    """Largest change of a weight between two Hugging Face folders."""
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    return max(float((old[name] - new[name]).abs().max()) for name in old)


def exported(work: Path) -> Path:
    return work / "checkpoints" / f"global_step_{STEPS}" / "actor" / "huggingface"


@pytest.mark.slow
def test_grpo(tiny_model: Path, tiny_rows: Path, tmp_path: Path) -> None:
    done = train(tiny_model, tiny_rows, tmp_path, "algorithm.adv_estimator=grpo")
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert sorted(metrics) == [1, 2]
    for step in metrics.values():
        assert log_prob_difference(step) <= LOG_PROB_TOLERANCE
        assert 0 <= step["critic/score/mean"] <= 1.1
        assert step["actor/grad_norm"] > 0
    validated = metrics[STEPS]
    assert 0 <= validated["val-core/tiny/acc/mean@1"] <= 1
    assert {"val-aux/tiny/fm/mean@1", "val-aux/tiny/em/mean@1"} <= validated.keys()
    assert changed(tiny_model, exported(tmp_path)) > 1e-4
    assert load_file(exported(tmp_path) / "model.safetensors")["model.norm.weight"].dtype == torch.float32
    print(f"{done.seconds:.0f} s, {metrics[STEPS]}")


@pytest.mark.slow
def test_ppo_with_critic_and_reference_on_two_ranks(tiny_model: Path, tiny_rows: Path, tmp_path: Path) -> None:
    done = train(tiny_model, tiny_rows, tmp_path, *WITH_CRITIC)
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    for step in metrics.values():
        assert log_prob_difference(step) <= LOG_PROB_TOLERANCE
        assert step["critic/grad_norm"] > 0
        assert step["actor/kl_loss"] >= 0
    assert metrics[1]["actor/kl_loss"] == pytest.approx(0, abs=1e-6)
    assert changed(tiny_model, exported(tmp_path)) > 1e-4
    print(f"{done.seconds:.0f} s, {metrics[STEPS]}")
