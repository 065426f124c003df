"""What must be the same when a run goes on: refused in one line, or said where a fork may differ."""

import functools
import json

import pandas as pd
import pytest
import torch
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES
from omegaconf import OmegaConf

from verl_longshort.base.checkpoint import TRACKER, CheckpointStore, PairState, Validation
from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import settings_of
from verl_longshort.verl_plugin.checks.policy_config import build_policy_configs
from verl_longshort.verl_plugin.checks.resume import (
    check_single_checkpoint,
    check_subsets,
    checked_resume,
    data_identity,
    plan_of,
    policy_identity,
    resume_point,
)
from verl_longshort.verl_plugin.launch import UNUSED
from verl_longshort.verl_plugin.requirements import kept_copies, saved_steps

POLICY = "longshort.policies.{}.actor_rollout_ref.{}"


def write_rows(file, count):
    rows = [
        {
            "data_source": "t",
            "prompt": [{"role": "user", "content": f"{i} ?"}],
            "reward_model": {"style": "rule", "ground_truth": "1"},
            "extra_info": {"index": i},
        }
        for i in range(count)
    ]
    pd.DataFrame(rows).to_parquet(file)
    return file


def write_model(folder, size=2):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"hidden_size": size}))
    (folder / "model.safetensors").write_bytes(bytes(size))
    return folder


@pytest.fixture
def run(tmp_path):
    """Overrides of a run that passes every check."""
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.parquet", 8)
    return {
        "device": "cpu",
        POLICY.format("long", "model.path"): model,
        POLICY.format("short", "model.path"): model,
        "actor_rollout_ref.actor.optim.lr_scheduler_type": "cosine",
        "data.train_files": rows,
        "data.val_files": rows,
        "data.train_batch_size": 4,
        "longshort.schedule": "[long,short]",
        "longshort.steps_per_round": 2,
        "trainer.default_local_dir": tmp_path / "run",
    }


@functools.cache
def composed():
    required = [*(POLICY.format(role, "model.path") for role in ROLES), "data.train_files", "data.val_files"]
    return compose_config("longshort_trainer", ["device=cpu", *(f"{key}=x" for key in required)], unused=UNUSED)


def config_of(run, changes=()):
    """What composing with these overrides gives, without composing again."""
    config = composed().copy()
    OmegaConf.set_struct(config, False)
    overrides = {key.lstrip("+"): value for key, value in {**run, **dict(changes)}.items() if key != "device"}
    return OmegaConf.merge(config, OmegaConf.from_dotlist([f"{key}={value}" for key, value in overrides.items()]))


def saved(run, *steps):
    """The checkpoints that a run with these overrides writes."""
    config = config_of(run)
    settings = settings_of(config)
    policies = build_policy_configs(config, settings.schedule, tied=settings.tied)
    store = CheckpointStore(config.trainer.default_local_dir)
    for step in steps:
        for name in policies:
            (store.policy_folder(name, step) / "actor").mkdir(parents=True)
            torch.save({}, store.policy_folder(name, step) / "actor" / "model_world_size_1_rank_0.pt")
        store.pair_folder(step).mkdir(parents=True)
        torch.save({}, store.pair_folder(step) / "data.pt")
        state = PairState(
            step=step,
            schedule=[one.value for one in settings.schedule.rounds],
            steps_per_round=settings.schedule.steps_per_round,
            plan=plan_of(settings, policies),
            data=data_identity(config),
            policies={role: policy_identity(policy) for role, policy in policies.items()},
        )
        store.commit(state)
    return store


def goes_on(run, changes=()):
    """The lines that are said when a run goes on."""
    config = config_of(run, changes)
    settings = settings_of(config)
    policies = build_policy_configs(config, settings.schedule, tied=settings.tied)
    return checked_resume(config, settings, policies).notes


def refused(run, changes, *words):
    with pytest.raises(UserError) as error:
        goes_on(run, changes)
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert str(word) in text, text


def test_one_policy_goes_on_from_one_and_two_from_two(run, tmp_path):
    both = {**run, "longshort.schedule": "[both,both]"}
    tied = {**both, "longshort.tied": "true"}
    saved(both, 2)
    trained = "longshort.tied = true: step 2 was trained with a policy for each role: set false"
    refused(both, {"longshort.tied": "true"}, trained)
    elsewhere = {**tied, "trainer.default_local_dir": tmp_path / "tied"}
    store = saved(elsewhere, 2)
    assert goes_on(elsewhere) == []
    trained = "longshort.tied = false: step 2 was trained with one policy for both roles: set true"
    refused(elsewhere, {"longshort.tied": "false"}, trained)
    assert goes_on(tied, fork(store, 2, tmp_path)) == []
    rank = {"actor_rollout_ref.model.lora_rank": 4}
    refused(elsewhere, rank, "longshort.policies.long.actor_rollout_ref.model.lora_rank = 4: step 2 was trained with 0")
    missing = store.policy_folder("tied", 2) / "actor"
    (missing / "model_world_size_1_rank_0.pt").unlink()
    refused(elsewhere, {}, "is gone or incomplete", missing)


def fork(store, step, tmp_path):
    return {
        "trainer.resume_mode": "resume_path",
        "trainer.resume_from_path": store.pair_folder(step),
        "trainer.default_local_dir": tmp_path / "fork",
    }


EXTENDED = {"longshort.schedule": "[long,short,long,short]"}
ENDS = {
    "longshort.reward.mu.end_step": 4,
    POLICY.format("long", "actor.optim.total_training_steps"): 2,
    POLICY.format("short", "actor.optim.total_training_steps"): 2,
}


def test_the_same_command_goes_on_without_a_word(run):
    saved(run, 2)
    assert goes_on(run) == []


def test_nothing_left_to_train_is_said(run, tmp_path):
    store = saved(run, 4)
    assert goes_on(run) == ["nothing left to train: step 4 of 4 is done"]
    assert goes_on(run, fork(store, 4, tmp_path)) == ["nothing left to train: step 4 of 4 is done"]


def test_an_extended_schedule_moves_no_end_in_silence(run, tmp_path):
    store = saved(run, 4)
    horizons = [f"{key} 2 -> 4" for key in list(ENDS)[1:]]
    refused(run, EXTENDED, "longshort.schedule", "step 4", "step 8", "longshort.reward.mu.end_step 4 -> 8", *horizons)
    # what it began with
    assert goes_on(run, {**EXTENDED, **ENDS}) == []
    # another end, as given
    moved = {**EXTENDED, **ENDS, "longshort.reward.mu.end_step": 6}
    assert goes_on(run, moved) == ["longshort.reward.mu.end_step 4 -> 6, as given"]
    # a fork is a run of its own
    (line,) = goes_on(run, {**EXTENDED, **fork(store, 4, tmp_path)})
    assert "the fork has ends of its own: longshort.reward.mu.end_step 4 -> 8" in line


def test_what_never_changes_has_no_end(run):
    constant = {
        "actor_rollout_ref.actor.optim.lr_scheduler_type": "constant",
        "longshort.reward.mu.start": 0.2,
    }
    run = {**run, **constant}
    saved(run, 4)
    assert goes_on(run, EXTENDED) == []


def test_other_terms_move_too(run):
    run = {**run, "+longshort.reward.terms.em": "{start: 0.0, end: 1.0, begin_step: 0, end_step: null}"}
    saved(run, 4)
    refused(run, {**EXTENDED, **ENDS}, "longshort.reward.terms.em.end_step 4 -> 8")


@pytest.mark.parametrize("count", [6, 12])
def test_other_training_data(run, tmp_path, count):
    store = saved(run, 2)
    other = {"data.train_files": write_rows(tmp_path / "other.parquet", count)}
    refused(run, other, "data.train_files", "other.parquet", f"is {count} problems", "8 problems", "fork the run")
    (line,) = goes_on(run, {**other, **fork(store, 2, tmp_path)})
    assert "the training data begins anew" in line


def test_the_same_data_elsewhere(run, tmp_path):
    saved(run, 2)
    assert goes_on(run, {"data.train_files": write_rows(tmp_path / "moved.parquet", 8)}) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.train_batch_size", 2),
        ("data.train_max_samples", 7),
        ("data.shuffle", False),
        ("data.val_max_samples", 5),
        ("data.seed", 9),
        ("actor_rollout_ref.rollout.val_kwargs.n", 4),
        ("actor_rollout_ref.rollout.val_kwargs.do_sample", True),
    ],
)
def test_another_order_or_another_validation(run, tmp_path, key, value):
    run = {**run, "data.val_max_samples": 4}
    store = saved(run, 2)
    refused(run, {key: value}, key, value, "fork the run")
    assert goes_on(run, {key: value, **fork(store, 2, tmp_path)})


def test_a_subset_without_a_seed(run):
    for key in ("data.val_max_samples", "data.train_max_samples"):
        refused(run, {key: 4, "data.seed": "null"}, key, "another subset at each start", "data.seed")
    check_subsets(config_of(run, {"data.val_max_samples": 4, "data.seed": "null", "data.shuffle": False}))


def test_another_model_than_the_run_began_with(run, tmp_path):
    saved(run, 2)
    key = POLICY.format("short", "model.path")
    refused(run, {key: write_model(tmp_path / "other", 3)}, key, "other", "another model", tmp_path / "model")
    assert goes_on(run, {key: write_model(tmp_path / "moved", 2)}) == []
    # trained once more into the same folder
    (tmp_path / "model" / "model.safetensors").write_bytes(b"xx")
    refused(run, {}, POLICY.format("long", "model.path"), "another model")


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("actor_rollout_ref.model.lora_rank", 8, "longshort.policies.long.actor_rollout_ref.model.lora_rank"),
        ("algorithm.adv_estimator", "gae", "longshort.policies.long.critic.enable"),
        ("actor_rollout_ref.actor.strategy", "fsdp2", "longshort.policies.long.actor_rollout_ref.actor.strategy"),
    ],
)
def test_files_that_would_not_fit(run, key, value, where):
    run = {**run, "actor_rollout_ref.actor.strategy": "fsdp"}
    saved(run, 2)
    refused(run, {key: value}, where, "step 2 was trained with")


def test_adapters_that_count_more_or_less(run):
    rank, alpha = POLICY.format("long", "model.lora_rank"), POLICY.format("long", "model.lora_alpha")
    run = {**run, rank: 8}
    saved(run, 2)
    assert goes_on(run, {POLICY.format("short", "model.lora_alpha"): 32}) == []
    refused(run, {alpha: 32}, alpha, "step 2 was trained with 16")


def test_a_state_of_an_earlier_version_agrees_with_everything_it_does_not_know(run):
    store = saved(run, 4)
    state = {"step": 4, "schedule": ["long", "short"], "steps_per_round": 2}
    (store.pair_folder(4) / "pair.json").write_text(json.dumps(state))
    assert goes_on(run, EXTENDED) == []


def test_a_fresh_start_overwrites_nothing(run, tmp_path):
    store = saved(run, 2, 4)
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    words = ("trainer.default_local_dir", "steps 2, 4", "give a new folder")
    refused(run, {"trainer.resume_mode": "disable"}, *words)
    (store.root / TRACKER).unlink()
    refused(run, {"trainer.resume_mode": "disable"}, *words)
    assert set(before) - {store.root / TRACKER} == set(store.root.rglob("*"))
    (tmp_path / "single" / "global_step_8" / "actor").mkdir(parents=True)
    refused(run, {"trainer.default_local_dir": tmp_path / "single"}, "single model's run", "another folder")


def test_going_back_is_a_fork(run, tmp_path):
    store = saved(run, 2, 4)
    back = {"trainer.resume_mode": "resume_path", "trainer.resume_from_path": store.pair_folder(2)}
    refused(run, back, "trainer.resume_from_path", "gone on to step 4", "would be overwritten")
    assert goes_on(run, {**back, "trainer.default_local_dir": tmp_path / "fork"}) == []
    # what is not whole is no reason
    (store.pair_folder(4) / "data.pt").unlink()
    assert goes_on(run, back) == []


def test_a_damaged_checkpoint_is_passed_over_and_said(run, tmp_path):
    store = saved(run, 2, 4)
    shard = store.policy_folder(ROLES[0], 4) / "actor" / "model_world_size_1_rank_0.pt"
    shard.write_bytes(b"")
    lines = goes_on(run)
    assert str(shard) in lines[0]
    assert "going on from step 2" in lines[1]
    assert resume_point(config_of(run).trainer).step == 2
    words = ("trainer.resume_from_path", "incomplete", shard, "whole: 2")
    refused(run, fork(store, 4, tmp_path), *words)


def test_a_choice_that_cannot_be_kept_is_said(run):
    store = saved(run, 2)
    one = Validation(step=4, accuracy=0.5, tokens=1.0)
    store.write_best(None, one, {})
    (line,) = goes_on(run)
    assert "names step 4" in line
    (store.root / "best.json").write_text("")
    (line,) = goes_on(run)
    assert "unreadable" in line


@pytest.mark.parametrize("key", ["max_actor_ckpt_to_keep", "max_critic_ckpt_to_keep", "remove_previous_ckpt_in_save"])
def test_verls_own_deletion_is_refused(run, key):
    sign = "+" if key.startswith("remove") else ""
    refused(run, {f"{sign}trainer.{key}": 1}, f"trainer.{key} = 1", "longshort.keep_checkpoints")
    own = f"longshort.policies.short.trainer.{key}"
    if not sign:
        refused(run, {f"+{own}": 1}, own, "longshort.keep_checkpoints")


def test_what_is_kept_of_the_papers_run(run):
    rounds = "[long,long,short,long,short,long]"
    schedule = settings_of(config_of({**run, "longshort.schedule": rounds, "longshort.steps_per_round": 70})).schedule
    saved_at = saved_steps(schedule, 10)
    assert len(saved_at) == 42
    # ends 70, 140, 280; 400, 410 and 420, which is being written; the best one
    assert [kept_copies(schedule, role, saved_at, 2) for role in ROLES] == [7, 6]
    # 28 and 14 checkpoints in rounds of its own, and one of the short policy before it learned
    assert [kept_copies(schedule, role, saved_at, None) for role in ROLES] == [28, 15]
    # ends alone: nothing else to keep
    ends = saved_steps(schedule, 70)
    assert ends == saved_steps(schedule, 1000) == [70, 140, 210, 280, 350, 420]
    assert saved_steps(schedule, -1) == []
    assert kept_copies(schedule, ROLES[1], ends, 1) == 3


def test_a_damaged_checkpoint_of_a_single_model_is_named_and_a_whole_one_offered(tmp_path):
    trainer = OmegaConf.create({"default_local_dir": str(tmp_path), "resume_mode": "auto"})
    check_single_checkpoint(trainer)
    for step in (2, 4, 10):
        folder = tmp_path / f"global_step_{step}"
        (folder / "actor").mkdir(parents=True)
        for file in (folder / "actor" / "model_world_size_1_rank_0.pt", folder / "data.pt"):
            torch.save({}, file)
    tracker = tmp_path / TRACKER
    tracker.write_text("10")
    check_single_checkpoint(trainer)
    for text, said in (("", "names no step"), ("x", "names no step"), ("7", "holds no checkpoint")):
        tracker.write_text(text)
        with pytest.raises(UserError, match=rf"{said}: write the step of a whole checkpoint into it \(2, 4, 10\)"):
            check_single_checkpoint(trainer)
    tracker.write_text("10")
    (tmp_path / "global_step_10" / "data.pt").unlink()
    (tmp_path / "global_step_4" / "actor" / "model_world_size_1_rank_0.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"data\.pt is missing: .*\(2\)"):
        check_single_checkpoint(trainer)
