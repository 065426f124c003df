"""One policy in both roles on the real trainer: what it learns, saves, exports, how it goes on and is evaluated."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.harness import read_metrics
from helpers.pair_checks import goes_on_with_the_same_weights, metrics_of, rows_are_sound, starts
from helpers.pair_runs import PairRun
from longshort_reward.protocol import ROLES, Role

from verl_longshort.base.checkpoint import CheckpointStore
from verl_longshort.base.metrics_files import metrics_files
from verl_longshort.engines.loading import load_model

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1500)]

STEPS = 4
OVERRIDES = [
    "longshort.tied=true",
    "longshort.schedule=[both,both]",
    f"longshort.steps_per_round={STEPS // 2}",
    # two updates a step: each has rows of both roles
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "trainer.save_freq=1",
    "trainer.test_freq=2",
    "longshort.keep_checkpoints=null",
]


def test_one_policy_learns_from_both_rows_and_resumes(tied_speaker: Mapping[Role, Path], tmp_path: Path) -> None:
    run = PairRun(folder=tmp_path, models=tied_speaker, overrides=OVERRIDES)
    run.killed_at(f"rollout-{STEPS}")
    run.to_end().expect_success()
    assert starts(run) == [0, STEPS - 1]
    goes_on_with_the_same_weights(run)
    rows_are_sound(run, per_step=16)
    served = [entry["weights"] for entry in run.audit() if entry.get("start") == 0 or "synced" in entry]
    assert all(list(one) == ["tied"] and len(one["tied"]) == 1 for one in served)
    assert len({one["tied"][0] for one in served}) == STEPS + 1
    learned_from_both_roles(metrics_of(run))
    store = CheckpointStore(run.checkpoints)
    assert store.steps() == list(range(1, STEPS + 1))
    assert all(store.defect(step) is None for step in store.steps())
    assert sorted(path.name for path in run.checkpoints.glob("*/global_step_4")) == ["global_step_4"]
    best = store.read_best()
    assert best is not None
    assert best["models"]["long"] == best["models"]["short"]
    folder = run.checkpoints / "tied" / f"global_step_{STEPS}" / "actor" / "huggingface"
    exported_for_both_roles(folder, tied_speaker[Role.LONG])
    evaluated_with_one_engine(run, folder)
    forked(run)


def learned_from_both_roles(metrics: dict[int, dict[str, Any]]) -> None:
    for step in metrics.values():
        for role in ROLES:
            counts = [step[f"{role}/rows/{name}"] for name in ("learned", "neutral", "alone")]
            assert sum(counts) == 16
            assert f"{role}/actor/pg_loss" not in step
        assert step["tied/actor/grad_norm"] > 0
        assert abs(step["tied/rollout_corr/kl"]) < 1e-3
    assert metrics[STEPS]["tied/actor/kl_loss"] > 0


def exported_for_both_roles(folder: Path, base: Path) -> None:
    record = json.loads((folder / "longshort_policy.json").read_text())
    assert record == {"role": "both", "prompts": {"long": "", "short": ""}, "base": str(base)}
    generation = json.loads((folder / "generation_config.json").read_text())
    assert len(generation["eos_token_id"]) >= 4 or len(generation["stop_strings"]) == 3
    load_model(str(folder))


def evaluated_with_one_engine(run: PairRun, folder: Path) -> None:
    settings = [
        *(f"longshort.models.{role}={folder}" for role in ROLES),
        "longshort.name=tied",
        f"longshort.output_dir={run.folder}",
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
    assert "warning" not in done.stdout
    answers = [json.loads(line) for line in (run.folder / "tied.jsonl").read_text().splitlines()[1:]]
    assert len(answers) == 16
    assert {turn["role"] for answer in answers for turn in answer["turns"]} == set(ROLES)


def forked(source: PairRun) -> None:
    """Another tied run begins with a checkpoint; two policies cannot."""
    origin = [
        "trainer.resume_mode=resume_path",
        f"trainer.resume_from_path={source.checkpoints}/global_step_{STEPS - 1}",
    ]
    fork = PairRun(folder=source.folder / "fork", models=source.models, overrides=[*source.overrides, *origin])
    fork.folder.mkdir()
    fork.to_end().expect_success()
    assert starts(fork) == [STEPS - 1]
    (begins,) = [entry["weights"] for entry in fork.audit() if "start" in entry]
    assert begins == [entry["weights"] for entry in source.audit() if entry.get("synced") == STEPS - 1][-1]
    two = PairRun(
        folder=source.folder / "two", models=source.models, overrides=[*fork.overrides, "longshort.tied=false"]
    )
    two.folder.mkdir()
    refused = two.to_end()
    assert refused.status == 2
    assert "longshort.tied = false: step 3 was trained with one policy for both roles" in refused.output


@pytest.mark.parametrize("adapted", [False, True])
def test_with_a_critic_and_with_adapters(tied_speaker: Mapping[Role, Path], tmp_path: Path, adapted: bool) -> None:
    more = ["algorithm.adv_estimator=gae"]
    if adapted:
        more = ["actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.actor.optim.lr=1e-2"]
    overrides = [*OVERRIDES, *more, "longshort.schedule=[both]", "trainer.test_freq=-1"]
    run = PairRun(folder=tmp_path, models=tied_speaker, overrides=overrides)
    run.killed_at("rollout-2")
    run.to_end().expect_success()
    assert starts(run) == [0, 1]
    goes_on_with_the_same_weights(run)
    rows_are_sound(run, per_step=16)
    metrics = {s: m for file in metrics_files(run.checkpoints) for s, m in read_metrics(file).items()}
    actor = run.checkpoints / "tied" / "global_step_2" / "actor"
    exported_for_both_roles(actor / "huggingface", tied_speaker[Role.LONG])
    if adapted:
        assert (actor / "adapter" / "adapter_model.safetensors").is_file()
    else:
        assert (actor.parent / "critic").is_dir()
        assert all("tied/critic/vf_loss" in metrics[step] for step in (1, 2))
