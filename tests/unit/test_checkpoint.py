import pytest
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role

from verl_longshort.base.checkpoint import CheckpointStore, PairState, Validation
from verl_longshort.core.schedule import Schedule

SCHEDULE = Schedule.parse(["long", "short"], 2)


def saved(store: CheckpointStore, step: int) -> None:
    for role in ROLES:
        store.policy_folder(role, step).mkdir(parents=True)
    store.pair_folder(step).mkdir(parents=True)
    store.commit(PairState(step=step, schedule=["long", "short"], steps_per_round=2))


def test_only_the_tracker_decides_what_is_latest(tmp_path):
    store = CheckpointStore(tmp_path)
    assert store.latest() is None
    saved(store, 2)
    # a kill between the policies' files and the tracker leaves folders that do not count
    store.policy_folder(Role.LONG, 3).mkdir(parents=True)
    store.pair_folder(3).mkdir()
    assert store.latest() == 2
    assert store.load(2, SCHEDULE).step == 2


def test_a_tracker_without_its_folder_is_named(tmp_path):
    store = CheckpointStore(tmp_path)
    saved(store, 2)
    (store.pair_folder(2) / "pair.json").unlink()
    with pytest.raises(UserError, match="its folder is gone"):
        store.latest()


def test_another_schedule_is_refused(tmp_path):
    store = CheckpointStore(tmp_path)
    saved(store, 3)
    with pytest.raises(UserError, match=r"longshort\.schedule"):
        store.load(3, Schedule.parse(["long", "long"], 2))


def test_pruning_keeps_the_last_and_the_best(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 3, 4):
        saved(store, step)
    start = Validation(step=0, accuracy=0.5, tokens=100.0)
    store.write_best(start, Validation(step=1, accuracy=0.6, tokens=50.0), {Role.LONG: "a", Role.SHORT: "b"})
    store.prune(2)
    assert [store.exists(step) for step in (1, 2, 3, 4)] == [True, False, True, True]
    assert not store.policy_folder(Role.SHORT, 2).exists()
    assert store.policy_folder(Role.SHORT, 1).exists()
    best = store.read_best()
    assert best is not None
    assert best["models"] == {"long": "a", "short": "b"}
