"""The real trainer on two tiny models with their own tokenizers: who learns, and from what."""

import json
from pathlib import Path

import pytest
import torch
from helpers import failing
from helpers.harness import Finished
from helpers.pair_checks import learned_as_scheduled, metrics_of, rows_are_sound
from helpers.pair_runs import PairRun
from longshort_reward.protocol import ROLES, Role
from transformers import AutoModelForCausalLM, AutoTokenizer

from verl_longshort.base.checkpoint import CheckpointStore
from verl_longshort.data.training_trajectories import read_steps

pytestmark = pytest.mark.integration


def rows_are_accounted_for(metrics: dict, learners: list[str], per_step: int) -> None:
    """Every row of a learner either teaches or is left out for a reason that is said."""
    for role in ROLES:
        counts = [metrics.get(f"{role}/rows/{name}") for name in ("learned", "neutral", "alone")]
        if role in learners:
            assert sum(counts) == per_step
            # own_tokens is of the rows that teach, and so is what verl says of its batch
            assert metrics[f"{role}/updated"] == 1.0
            assert metrics[f"{role}/own_tokens"] >= counts[0] > 0
        else:
            assert counts == [None] * 3


def test_a_mixed_schedule(speakers, tmp_path):
    schedule = ["long", "short", "both"]
    overrides = [
        f"longshort.schedule=[{','.join(schedule)}]",
        # each policy learns in its own way
        "longshort.policies.short.algorithm.adv_estimator=gdpo",
        "algorithm.rollout_correction.rollout_is=token",
        f"trainer.rollout_data_dir={tmp_path / 'sampled'}",
        f"trainer.validation_data_dir={tmp_path / 'validated'}",
    ]
    run = PairRun(folder=tmp_path, models=speakers, overrides=overrides)
    done = run.to_end().expect_success()
    learned_as_scheduled(run, schedule)
    rows_are_sound(run, per_step=16)
    console_is_for_people(run, done)

    metrics = metrics_of(run)
    assert sorted(metrics) == [1, 2, 3]
    sampled_is_written(run, schedule, metrics)
    importance_weights_are_there(schedule, metrics)
    for folder in (tmp_path / "sampled", tmp_path / "validated"):
        roles_have_their_own_tokenizers(folder)
    for step, learners in ((1, ["long"]), (2, ["short"]), (3, ["long", "short"])):
        rows_are_accounted_for(metrics[step], learners, per_step=16)
        # a policy that did not learn has its weights already
        assert {role: metrics[step][f"{role}/weights_sent"] for role in ROLES} == {
            role: float(role in learners) for role in ROLES
        }
    assert "long/actor/kl_loss" in metrics[1]
    assert "short/actor/kl_loss" not in metrics[1]
    for name in (
        "long/actor/entropy",
        "short/actor/entropy",
        "long/reward/lm",
        "short/reward/fm",
        "pair/accuracy",
    ):
        assert name in metrics[3]
    for name in (
        "pair/tokens",
        "pair/turns",
        "pair/rethink_rate",
        "val/accuracy",
        "val/tokens",
        "short/reward/em",
    ):
        assert name in metrics[3]

    best = CheckpointStore(run.checkpoints).read_best()
    assert best is not None
    assert all((Path(best["models"][role]) / "config.json").exists() for role in ROLES)
    for role in ROLES:
        exported(run.checkpoints, role, speakers[role])


def console_is_for_people(run: PairRun, done: Finished) -> None:
    """A line per step, validation and checkpoint, and the rest in the log: warnings, progress bars, 150 metrics."""
    (log,) = run.logs()
    console = done.output.removeprefix(log.read_text(errors="replace")).strip().splitlines()
    begin = console.index(f"Log: {log}")
    assert not [line for line in console[:begin] if "Warning" in line]
    console = console[begin:]
    # besides: notes, and a line of progress where nothing was said for a minute
    kinds = [word for line in console[1:] if (word := line.split()[0]) not in ("note:", "warning:", "train")]
    assert kinds == ["starting", *["step", "checkpoint", "validation"] * 3, "best"]
    first = next(line for line in console if line.startswith("step 1/3  L1 "))
    for name in ("accuracy", "tokens", "reward", "rethink", "left"):
        assert name in first
    printed = log.read_text(errors="replace")
    assert "critic/score/mean" in printed
    assert printed.count("No model-specific Continuous Token builder") == 1
    assert "target_num_threads" not in printed


def failures_are_counted(metrics: dict[int, dict], output: str) -> None:
    """Failed trajectories are left out of the rows (see `rows_are_sound`); the first one of a kind is told of."""
    for kind in ("pair", "val"):
        assert sum(step[f"{kind}/failed/engine"] for step in metrics.values()) > 0
        assert all(step[f"{kind}/failed/other"] == 0 for step in metrics.values())
    # of training and of validation, on the console and in the log
    assert 0 < output.count("a trajectory failed (engine): RuntimeError: made to fail; later ones") <= 4


def sampled_is_written(run: PairRun, schedule: list[str], metrics: dict[int, dict]) -> None:
    """Four groups of each step, with the advantages of those who learned, and in no time."""
    logged = list(read_steps(run.checkpoints))
    for step, learner in enumerate(schedule, start=1):
        own = [one for one in logged if one.step == step]
        assert [(one.group, one.session) for one in own] == [
            (group, session) for group in range(4) for session in range(4)
        ]
        assert all(one.turns and one.ground_truth for one in own)
        assert sum(one.correct for one in own) / 16 == pytest.approx(metrics[step]["pair/accuracy"])
        for role in ROLES:
            rewards = [one.rewards[role] for one in own]
            assert sum(r.total for r in rewards) / 16 == pytest.approx(metrics[step][f"{role}/reward/total"])
            assert any(r.advantage is not None for r in rewards) == (learner in (role, "both"))
        assert metrics[step]["timing_s/log_trajectories"] < 0.2


def importance_weights_are_there(schedule: list[str], metrics: dict[int, dict]) -> None:
    """Of every learner, and 1 where engine and actor agree."""
    for step, learner in enumerate(schedule, start=1):
        for role in ROLES:
            key = f"{role}/rollout_corr/rollout_is_mean"
            assert (key in metrics[step]) == (learner in (role, "both"))
            assert metrics[step].get(key, 1.0) == pytest.approx(1.0, abs=1e-3)


def roles_have_their_own_tokenizers(folder: Path) -> None:
    """verl's files of prompts and responses: both rows of a trajectory say the same, whatever their tokens."""
    for step in (1, 2, 3):
        rows = [json.loads(line) for line in (folder / f"{step}.jsonl").read_text().splitlines()]
        assert len(rows) == 32
        assert {row["role"] for row in rows} == set(ROLES)
        said: dict[str, set[str]] = {}
        for row in rows:
            said.setdefault(row["uid"].rpartition("_")[0], set()).add("".join(row["output"].split()))
        assert all(len(texts) == 1 for texts in said.values()), said


def exported(checkpoints: Path, role: Role, start: Path, *, step: int = 3) -> None:
    """The checkpoint's Hugging Face folder loads, generates, and is not what the run started from."""
    folder = checkpoints / role / f"global_step_{step}" / "actor" / "huggingface"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    heard = "start 1 ; step 2 ?" + (" <think> 1 + 2 </think>" if role is Role.SHORT else "")
    prompt = tokenizer(heard, return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=12, do_sample=False)[0])
    assert ("</think>" if role is Role.LONG else "<answer>") in text
    before = AutoModelForCausalLM.from_pretrained(start).state_dict()
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_both_learn_by_gae_on_two_ranks(speakers, tmp_path):
    overrides = [
        "longshort.schedule=[both,both]",
        "algorithm.adv_estimator=gae",
        "trainer.n_gpus_per_node=2",
        "trainer.logger=[console,file,tensorboard]",
        "longshort.max_failed_share=0.3",
    ]
    run = PairRun(folder=tmp_path, models=speakers, overrides=overrides, variables={failing.VARIABLE: "100"})
    done = run.to_end().expect_success()
    failures_are_counted(metrics_of(run), done.output)
    learned_as_scheduled(run, ["both", "both"])
    rows_are_sound(run, per_step=16)
    metrics = metrics_of(run)
    assert list((tmp_path / "tensorboard").glob("events.*"))
    for role in ROLES:
        assert f"{role}/critic/vf_loss" in metrics[2]
        assert metrics[2][f"{role}/rows/alone"] == 0.0
        # every replica of a policy serves the same weights
        assert all(len(set(w[role])) == 1 and len(w[role]) == 2 for w in run.weights())


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["long", "short"])
@pytest.mark.parametrize("estimator", ["grpo", "gae"])
def test_one_learner_and_a_partner_that_only_serves(speakers, tmp_path, learner, estimator):
    overrides = [f"longshort.schedule=[{learner},{learner}]", f"algorithm.adv_estimator={estimator}"]
    run = PairRun(folder=tmp_path, models=speakers, overrides=overrides)
    run.to_end().expect_success()
    learned_as_scheduled(run, [learner, learner])
    rows_are_sound(run, per_step=16)


@pytest.mark.slow
def test_a_mixed_schedule_by_gae_in_pools_of_their_own(speakers, tmp_path):
    schedule = ["short", "both", "long"]
    overrides = [
        f"longshort.schedule=[{','.join(schedule)}]",
        "longshort.pools=separate",
        "algorithm.adv_estimator=gae",
    ]
    run = PairRun(folder=tmp_path, models=speakers, overrides=overrides)
    run.to_end().expect_success()
    learned_as_scheduled(run, schedule)
    rows_are_sound(run, per_step=16)
    sent = {step: {role for role in ROLES if own[f"{role}/weights_sent"]} for step, own in metrics_of(run).items()}
    assert sent == {1: {"short"}, 2: set(ROLES), 3: {"long"}}


@pytest.mark.slow
def test_a_policy_without_credit_or_blame_is_left_as_it_is(speakers, tmp_path):
    # A model of the short role breaks the protocol in the long role's first turn: the short role is never heard.
    models = dict.fromkeys(ROLES, speakers[Role.SHORT])
    run = PairRun(folder=tmp_path, models=models, overrides=["longshort.schedule=[short,both]"])
    run.to_end().expect_success()
    metrics, weights = metrics_of(run), run.weights()
    for step in (1, 2):
        assert metrics[step]["short/rows/neutral"] == 16.0
        assert metrics[step]["short/updated"] == metrics[step]["short/rows/learned"] == 0.0
        assert not any(name.startswith("short/actor") for name in metrics[step])
    assert metrics[2]["long/updated"] == 1.0
    assert len({weights[step]["short"][0] for step in range(3)}) == 1


@pytest.mark.slow
def test_a_critic_warms_up_in_its_own_policys_first_updates(speakers, tmp_path):
    overrides = [
        "longshort.schedule=[short,short,long,long]",
        "algorithm.adv_estimator=gae",
        "trainer.critic_warmup=2",
        "algorithm.filter_groups.enable=true",
        "algorithm.filter_groups.max_num_gen_batches=3",
    ]
    run = PairRun(folder=tmp_path, models=speakers, overrides=overrides)
    run.to_end().expect_success()
    metrics, weights = metrics_of(run), run.weights()
    for step, learner in enumerate(["short", "short", "long", "long"], start=1):
        assert f"{learner}/critic/vf_loss" in metrics[step]
        filtered = {name: metrics[step][f"training/filter_groups/{name}"] for name in ("generated", "unvarying")}
        assert 4 <= filtered["generated"] <= 12
        assert filtered["unvarying"] == 0 or filtered["generated"] == 12
        updated = step in (2, 4)
        assert (f"{learner}/actor/pg_loss" in metrics[step]) is updated
        assert (weights[step - 1][learner] != weights[step][learner]) is updated
