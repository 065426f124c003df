"""Checkpoints of a pair as files: which one counts, what a power cut leaves, what is shared and what is deleted."""

import json
import os
import shutil

import pytest
import torch
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role

from verl_longshort.base.checkpoint import TRACKER, CheckpointStore, PairState, Validation
from verl_longshort.core.schedule import Schedule

SCHEDULE = Schedule.parse(["long", "short"], 2)
STATE = {"schedule": ["long", "short"], "steps_per_round": 2}
SHARD = "long/global_step_4/actor/model_world_size_2_rank_0.pt"


def save_policy(store: CheckpointStore, role: Role, step: int) -> None:
    actor = store.policy_folder(role, step) / "actor"
    actor.mkdir(parents=True)
    for rank in (0, 1):
        torch.save({"step": step}, actor / f"model_world_size_2_rank_{rank}.pt")


def save_pair(store: CheckpointStore, step: int) -> None:
    store.pair_folder(step).mkdir(parents=True)
    torch.save({}, store.pair_folder(step) / "data.pt")
    store.commit(PairState(step=step, **STATE))


def saved(store: CheckpointStore, step: int) -> None:
    for role in ROLES:
        save_policy(store, role, step)
    save_pair(store, step)


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path)


def chosen(store: CheckpointStore, step: int) -> None:
    start = Validation(step=0, accuracy=0.5, tokens=100.0)
    store.write_best(start, Validation(step=step, accuracy=0.6, tokens=50.0), {Role.LONG: "a", Role.SHORT: "b"})


def test_only_the_tracker_decides_what_is_latest(store):
    assert store.latest() is None
    saved(store, 2)
    # a kill between the policies' files and the tracker leaves folders that do not count
    store.policy_folder(Role.LONG, 3).mkdir(parents=True)
    store.pair_folder(3).mkdir()
    assert store.latest() == 2
    assert store.find().notes == ()
    assert store.load(2, SCHEDULE).step == 2


def test_a_tracker_without_its_folder_is_named(store):
    saved(store, 2)
    (store.pair_folder(2) / "pair.json").unlink()
    with pytest.raises(UserError, match="its folder is gone"):
        store.latest()


def test_another_schedule_is_refused(store):
    saved(store, 3)
    with pytest.raises(UserError, match=r"longshort\.schedule"):
        store.load(3, Schedule.parse(["long", "long"], 2))


@pytest.mark.parametrize("earlier_version", [False, True])
@pytest.mark.parametrize(
    ("damage", "whole", "said"),
    [
        (lambda root: (root / SHARD).unlink(), 2, "rank_0.pt"),
        (lambda root: os.truncate(root / SHARD, 100), 2, "rank_0.pt"),
        (lambda root: (root / "global_step_4/data.pt").unlink(), 2, "data.pt"),
        (lambda root: os.truncate(root / "global_step_4/data.pt", 0), 2, "data.pt"),
        (lambda root: (root / "global_step_4/pair.json").write_text('{"step": 4, "sche'), 2, "pair.json"),
        (lambda root: (root / "global_step_4/pair.json").write_text("[]"), 2, "pair.json"),
        (lambda root: (root / "global_step_4/pair.json").unlink(), 2, "pair.json"),
        (lambda root: shutil.rmtree(root / "global_step_4"), 2, "pair.json"),
        (lambda root: (root / TRACKER).write_text(""), 4, "is empty"),
        (lambda root: (root / TRACKER).write_bytes(b"\xff\0"), 4, "names no step"),
        (lambda root: (root / TRACKER).unlink(), 4, "is missing"),
        (lambda root: (root / TRACKER).write_text("9"), 4, "global_step_9"),
    ],
)
def test_after_a_power_cut_the_newest_whole_checkpoint_counts(store, damage, whole, said, earlier_version):
    for step in (2, 4):
        saved(store, step)
        if earlier_version:
            (store.pair_folder(step) / "pair.json").write_text(json.dumps({"step": step, **STATE}))
    damage(store.root)
    found = store.find()
    assert found.step == store.latest() == whole
    assert any(said in note for note in found.notes)
    assert f"going on from step {whole}" in found.notes[-1]


def test_no_whole_checkpoint_is_no_fresh_start(store):
    saved(store, 4)
    os.truncate(store.root / SHARD, 10)
    with pytest.raises(UserError, match=r"= 4: .*rank_0.pt has 10 of \d+ bytes.*no earlier checkpoint is whole"):
        store.latest()
    (store.root / TRACKER).unlink()
    with pytest.raises(UserError, match="no earlier checkpoint is whole"):
        store.latest()


def test_pruning_keeps_the_last_and_the_best(store):
    for step in (1, 2, 3, 4):
        saved(store, step)
    chosen(store, 1)
    store.prune(2)
    assert [store.exists(step) for step in (1, 2, 3, 4)] == [True, False, True, True]
    assert not store.policy_folder(Role.SHORT, 2).exists()
    assert store.policy_folder(Role.SHORT, 1).exists()
    best = store.read_best()
    assert best is not None
    assert best["models"] == {"long": "a", "short": "b"}


def test_pruning_spares_ends_of_rounds_and_what_the_tracker_names(store):
    for step in (2, 3, 4, 5, 6, 7):
        saved(store, step)
    (store.root / TRACKER).write_text("6")
    os.truncate(store.root / "long/global_step_7/actor/model_world_size_2_rank_0.pt", 1)
    store.prune(1, spare=(2, 4))
    assert store.steps() == [2, 4, 6]
    assert store.latest() == 6


def test_a_policy_that_did_not_learn_shares_its_files(store):
    saved(store, 2)
    save_policy(store, Role.LONG, 4)
    store.share(Role.SHORT, 4, written=2)
    save_pair(store, 4)
    own, first = (store.policy_folder(Role.SHORT, step) / "actor/model_world_size_2_rank_0.pt" for step in (4, 2))
    assert own.stat().st_ino == first.stat().st_ino
    store.prune(1)
    assert store.steps() == [4]
    assert not first.exists()
    assert torch.load(own) == {"step": 2}
    assert store.defect(4) is None


def test_without_hard_links_nothing_is_left_behind(store, monkeypatch):
    saved(store, 2)

    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(OSError, match="not permitted"):
        store.share(Role.SHORT, 4, written=2)
    assert not store.policy_folder(Role.SHORT, 4).exists()


@pytest.mark.parametrize("text", ['{"start": ', "[]", "{}"])
def test_a_broken_choice_is_restored_from_the_checkpoint(store, text):
    saved(store, 2)
    chosen(store, 2)
    saved(store, 4)
    (store.root / "best.json").write_text(text)
    with pytest.raises(UserError, match=r"best\.json.*unreadable"):
        store.read_best()
    assert "unreadable" in store.best_defect(4)
    state = store.load(4, SCHEDULE)
    assert store.first_validation(state) == Validation(step=0, accuracy=0.5, tokens=100.0)
    store.restore_best(state)
    assert store.read_best()["best"]["step"] == 2
    assert store.best_defect(4) is None


def test_a_choice_that_the_run_has_yet_to_reach_again_is_taken_back(store):
    saved(store, 2)
    saved(store, 4)
    chosen(store, 4)
    assert store.best_defect(4) is None
    os.truncate(store.root / SHARD, 10)
    assert "step 4" in store.best_defect(2)
    store.restore_best(store.load(2, SCHEDULE))
    assert store.read_best() is None
