"""LoRA for one role on the real trainer: what is learned, sent, saved, resumed, exported and evaluated."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from helpers.harness import read_metrics
from helpers.pair_runs import PairRun
from longshort_reward.protocol import ROLES, Role
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from verl_longshort.base.checkpoint import CheckpointStore
from verl_longshort.base.metrics_files import metrics_files
from verl_longshort.engines.loading import load_model

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1500)]

STEPS = 3
OVERRIDES = [
    "longshort.schedule=[both]",
    f"longshort.steps_per_round={STEPS}",
    "longshort.policies.long.actor_rollout_ref.model.lora_rank=8",
    "longshort.policies.long.actor_rollout_ref.actor.optim.lr=1e-2",
    "trainer.save_freq=1",
    "trainer.test_freq=-1",
    "longshort.keep_checkpoints=null",
]


def test_one_role_has_adapters(speakers: Mapping[Role, Path], tmp_path: Path) -> None:
    run = PairRun(folder=tmp_path, models=speakers, overrides=OVERRIDES)
    run.killed_at(f"rollout-{STEPS}")
    run.to_end().expect_success()
    served = {entry["synced"]: entry["weights"] for entry in run.audit() if "synced" in entry}
    first, second = (entry for entry in run.audit() if "start" in entry)
    assert (first["start"], second["start"]) == (0, STEPS - 1)
    assert second["weights"] == served[STEPS - 1]
    probabilities_agree(run)
    distance_to_the_base_grows(run)
    actor = run.checkpoints / "long" / f"global_step_{STEPS}" / "actor"
    only_adapters_are_trained(run, actor)
    adapter_and_merged_folder_are_one_model(actor, speakers[Role.LONG])
    assert CheckpointStore(run.checkpoints).defect(STEPS) is None
    both_evaluate_alike(run, tmp_path)


def probabilities_agree(run: PairRun) -> None:
    """The engine has the very weights that the actor computes with, in its precision."""
    for entry in run.steps():
        for role in ROLES:
            assert entry["rows"][role]["logprob_difference"] <= 1e-4, entry


def distance_to_the_base_grows(run: PairRun) -> None:
    """KL is to the base, which is the policy without its adapters: nothing before the first update."""
    metrics = {s: m for file in metrics_files(run.checkpoints) for s, m in read_metrics(file).items()}
    for role in ROLES:
        assert abs(metrics[1][f"{role}/actor/kl_loss"]) < 1e-6
        assert metrics[STEPS][f"{role}/actor/kl_loss"] > 1e-6


def only_adapters_are_trained(run: PairRun, actor: Path) -> None:
    saved = torch.load(actor / "model_world_size_1_rank_0.pt", weights_only=False)
    assert saved
    assert all("lora_" in name for name in saved)
    optimizer = torch.load(actor / "optim_world_size_1_rank_0.pt", weights_only=False)
    assert len(optimizer["state"]) == len(saved)
    full = torch.load(
        run.checkpoints / "short" / actor.parent.name / "actor" / "model_world_size_1_rank_0.pt", weights_only=False
    )
    assert not any("lora_" in name for name in full)


def adapter_and_merged_folder_are_one_model(actor: Path, base: Path) -> None:
    merged = load_model(str(actor / "huggingface"))
    wrapped = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(actor / "adapter"))
    ids = torch.arange(1, 12)[None]
    with torch.no_grad():
        torch.testing.assert_close(wrapped(ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(merged(ids).logits, AutoModelForCausalLM.from_pretrained(base)(ids).logits, atol=1e-3)
    own = load_model(str(actor / "adapter")).state_dict()
    torch.testing.assert_close(own, merged.state_dict(), rtol=0, atol=0)
    # every linear layer of the decoder
    assert sum("lora_A" in name for name in load_file(actor / "adapter" / "adapter_model.safetensors")) % 7 == 0


def both_evaluate_alike(run: PairRun, folder: Path) -> None:
    short = run.checkpoints / "short" / f"global_step_{STEPS}" / "actor" / "huggingface"
    answers = []
    for name in ("huggingface", "adapter"):
        long = run.checkpoints / "long" / f"global_step_{STEPS}" / "actor" / name
        settings = [
            *(f"longshort.models.{role}={model}" for role, model in (("long", long), ("short", short))),
            f"longshort.name={name}",
            f"longshort.output_dir={folder}",
            f"longshort.data={run.folder / 'rows.parquet'}",
            "longshort.engine=transformers",
            "longshort.environment.token_budget=48",
            "longshort.environment.max_turns=6",
            "longshort.environment.prompts.long=''",
            "longshort.environment.prompts.short=''",
        ]
        command = [sys.executable, "-m", "verl_longshort.cli", "eval", *settings]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = (folder / f"{name}.jsonl").read_text().splitlines()
        records = map(json.loads, lines[1:])
        answers.append({record["problem_index"]: record["turns"] for record in records})
    assert answers[0] == answers[1]
    assert len(answers[0]) == 16
