"""Bad input to a training run ends in one line that names key, value and remedy."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers.tiny_tokenizers import normalising
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role

from verl_longshort.base.checkpoint import CheckpointStore, PairState
from verl_longshort.cli import main
from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import settings_of
from verl_longshort.verl_plugin.checks.policy_config import build_policy_configs
from verl_longshort.verl_plugin.checks.preflight import _check_shards, check
from verl_longshort.verl_plugin.checks.resume import resume_point
from verl_longshort.verl_plugin.launch import settle_paths

UNUSED = ("reward.reward_model",)


def rows(count, **drop):
    made = [
        {
            "data_source": "t",
            "prompt": [{"role": "user", "content": "?"}],
            "reward_model": {"style": "rule", "ground_truth": "1"},
            "extra_info": {"index": i},
        }
        for i in range(count)
    ]
    return [{k: v for k, v in row.items() if k not in drop} for row in made]


@pytest.fixture
def run(tmp_path):
    """Overrides of a run that passes every check."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    normalising().save_pretrained(model)
    pd.DataFrame(rows(8)).to_parquet(tmp_path / "rows.parquet")
    return {
        "device": "cpu",
        "longshort.policies.long.actor_rollout_ref.model.path": model,
        "longshort.policies.short.actor_rollout_ref.model.path": model,
        "data.train_files": tmp_path / "rows.parquet",
        "data.val_files": tmp_path / "rows.parquet",
        "data.train_batch_size": 4,
        "data.max_prompt_length": 2048,
        "longshort.schedule": "[long,short]",
        "longshort.steps_per_round": 2,
        "trainer.default_local_dir": tmp_path / "run",
    }


def fails(run, tmp_path, *words, **changes):
    overrides = {**run, **{k.replace("__", "."): v for k, v in changes.items()}}
    result = CliRunner().invoke(main, ["train", *(f"{k}={v}" for k, v in overrides.items() if v is not None)])
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line.strip()]
    assert len(lines) == 1, result.output
    for word in words:
        assert word in lines[0]
    assert not (tmp_path / "run").exists()


def write(path: Path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def test_a_missing_column(run, tmp_path):
    bad = write(tmp_path / "bad.jsonl", rows(8, reward_model=True))
    fails(run, tmp_path, "data.train_files", "bad.jsonl", "reward_model", data__train_files=bad)


def test_no_ground_truth(run, tmp_path):
    records = rows(8)
    records[3]["reward_model"] = {"style": "rule"}
    bad = write(tmp_path / "bad.jsonl", records)
    fails(run, tmp_path, "data.val_files", "record 4", "ground_truth", data__val_files=bad)


def test_an_empty_data_set(run, tmp_path):
    empty = write(tmp_path / "empty.jsonl", [])
    fails(run, tmp_path, "data.train_files", "empty.jsonl", "no records", data__train_files=empty)


def test_a_model_that_is_not_there(run, tmp_path):
    key = "longshort.policies.short.actor_rollout_ref.model.path"
    fails({**run, key: tmp_path / "nowhere"}, tmp_path, key, "nowhere", "no such folder")


def test_an_unknown_role(run, tmp_path):
    fails(run, tmp_path, "longshort.schedule", "lnog", "long, short, both", longshort__schedule="[lnog]")


def test_mu_longer_than_the_run(run, tmp_path):
    fails(run, tmp_path, "longshort.reward.mu.end_step", "9", "4 steps", longshort__reward__mu__end_step=9)


def test_gpus_that_are_not_there(run, tmp_path):
    words = ("trainer.n_gpus_per_node", "64", "device=cpu")
    fails(run, tmp_path, *words, device="cuda", trainer__n_gpus_per_node=64)


def test_a_batch_larger_than_the_data(run, tmp_path):
    fails(run, tmp_path, "data.train_batch_size", "9", data__train_batch_size=9)


def test_a_length_of_the_run_that_is_not_the_schedules(run, tmp_path):
    fails(run, tmp_path, "trainer.total_training_steps", trainer__total_training_steps=7)


def test_a_typo_in_our_block(run, tmp_path):
    fails({**run, "longshort.shedule": "[long]"}, tmp_path, "longshort.shedule", "longshort.schedule")


@pytest.mark.parametrize("sign", ["", "+"])
def test_a_typo_in_a_policys_overrides(run, tmp_path, sign):
    key = f"{sign}longshort.policies.long.actor_rollout_ref.actor.optim.rl"
    fails({**run, key: 0.1}, tmp_path, "actor_rollout_ref.actor.optim.rl", "no such key")


def test_a_key_the_pair_decides(run, tmp_path):
    key = "+longshort.policies.long.trainer.default_local_dir"
    fails({**run, key: "/x"}, tmp_path, "default_local_dir", "the pair decides")


def test_a_missing_required_key(run, tmp_path):
    key = "longshort.policies.long.actor_rollout_ref.model.path"
    fails({**run, key: None}, tmp_path, key, "required")


@pytest.mark.parametrize("sign", ["", "+"])
def test_an_override_of_one_policy_reaches_what_interpolates_it(run, sign):
    extra = [f"{sign}longshort.policies.long.actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3"]
    config = compose_config("longshort_trainer", [*(f"{k}={v}" for k, v in run.items()), *extra], unused=UNUSED)
    built = build_policy_configs(config, settings_of(config).schedule)
    assert built["long"]["actor_rollout_ref"]["actor"]["ppo_micro_batch_size_per_gpu"] == 3
    assert built["short"]["actor_rollout_ref"]["actor"]["ppo_micro_batch_size_per_gpu"] is None
    path = run["longshort.policies.long.actor_rollout_ref.model.path"]
    assert built["long"]["critic"]["model"]["path"] == str(path)
    assert built["long"]["actor_rollout_ref"]["rollout"]["custom"]["role"] == "long"


def test_a_policy_that_only_serves_needs_devices_of_its_own(run, tmp_path):
    key = "longshort.policies.short.actor_rollout_ref.rollout.nnodes"
    fails(run, tmp_path, key, "learns in no round", device="cuda", longshort__schedule="[long]")


def test_a_checkpoint_of_other_ranks(tmp_path):
    folder = tmp_path / "long" / "global_step_2" / "actor"
    folder.mkdir(parents=True)
    policies = {"long": {"trainer": {"nnodes": 2, "n_gpus_per_node": 1}}}
    _check_shards(policies, tmp_path, 2)
    (folder / "model_world_size_2_rank_0.pt").touch()
    with pytest.raises(UserError, match=r"= 2: .*lacks model_world_size_2_rank_1.pt"):
        _check_shards(policies, tmp_path, 2)
    (folder / "model_world_size_2_rank_1.pt").touch()
    _check_shards(policies, tmp_path, 2)
    policies["long"]["trainer"]["nnodes"] = 1
    with pytest.raises(UserError, match=r"= 1: .*give as many ranks as wrote it \(2\)"):
        _check_shards(policies, tmp_path, 2)


def checkpoint(root, step, *, without=()):
    """A checkpoint of a pair as far as preflight looks at it."""
    store = CheckpointStore(root)
    for role in ROLES:
        if role not in without:
            (store.policy_folder(role, step) / "actor").mkdir(parents=True)
    store.pair_folder(step).mkdir(parents=True)
    if "data.pt" not in without:
        (store.pair_folder(step) / "data.pt").touch()
    store.commit(PairState(step=step, schedule=["long", "short"], steps_per_round=2))
    return store.pair_folder(step)


def resumed(run, folder, **changes):
    changes = {"trainer.resume_mode": "resume_path", "trainer.resume_from_path": folder, **changes}
    return compose_config("longshort_trainer", [f"{k}={v}" for k, v in {**run, **changes}.items()], unused=UNUSED)


@pytest.mark.parametrize("end", ["", "/"])
def test_a_fork_reads_one_folder_and_writes_another(run, tmp_path, end):
    folder = checkpoint(tmp_path / "source", 2)
    config = resumed(run, f"{folder}{end}")
    assert check(config).policies
    found = resume_point(config.trainer)
    assert (found.source.root, found.store.root, found.step) == (tmp_path / "source", tmp_path / "run", 2)
    assert found.is_fork
    again = resume_point(resumed(run, folder, **{"trainer.default_local_dir": tmp_path / "source"}).trainer)
    assert (again.is_fork, again.step) == (False, 2)


def test_forks_that_cannot_be_are_refused(run, tmp_path):
    folder = checkpoint(tmp_path / "source", 2)

    def refused(folder, *words, **changes):
        given = {"trainer__resume_mode": "resume_path", "trainer__resume_from_path": folder}
        fails(run, tmp_path, *words, **given, **changes)

    refused(tmp_path / "source", "trainer.resume_from_path", "is no checkpoint of a pair")
    refused("null", "trainer.resume_from_path", "is no checkpoint of a pair")
    for number, part in enumerate((Role.LONG, Role.SHORT, "data.pt")):
        incomplete = checkpoint(tmp_path / f"incomplete-{number}", 2, without=(part,))
        refused(incomplete, "trainer.resume_from_path", "the checkpoint is incomplete", str(part))
    words = ("trainer.del_local_ckpt_after_load", "would delete the run that is forked")
    refused(folder, *words, trainer__del_local_ckpt_after_load="true")
    checkpoint(tmp_path / "own", 2)
    with pytest.raises(UserError, match=r"trainer\.default_local_dir = .*own: has checkpoints of its own"):
        check(resumed(run, folder, **{"trainer.default_local_dir": tmp_path / "own"}))


@pytest.mark.parametrize("name", ["a=b", "two words", "(1)", "~x", "Übung", "it's", "100%", "a,b"])
def test_paths_with_odd_characters(run, name, monkeypatch):
    home = run["data.train_files"].parent
    monkeypatch.setenv("HOME", str(home))
    given = {**run, "trainer.default_local_dir": f"~/{name}/run", "data.train_files": "~/rows.parquet"}
    config = compose_config("longshort_trainer", [f"{k}={v}" for k, v in given.items()], unused=UNUSED)
    settle_paths(config)
    assert config.trainer.default_local_dir == f"{home}/{name}/run"
    assert config.data.train_files == [f"{home}/rows.parquet"]
    assert check(config).policies["long"]["trainer"]["default_local_dir"] == f"{home}/{name}/run/long"
