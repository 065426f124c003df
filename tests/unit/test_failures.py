"""Failed trajectories: how many a run survives, and what the replay buffer hands out without them."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from longshort_reward.errors import UserError
from omegaconf import OmegaConf
from ray.exceptions import ActorDiedError, RayTaskError
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import replay_buffer
from verl.utils import tensordict_utils

from verl_longshort.base.errors import RunDiedError
from verl_longshort.verl_plugin.rollout import failures as notes
from verl_longshort.verl_plugin.rollout.failures import FailureKind, TrajectoryError, failing_as, note_failure
from verl_longshort.verl_plugin.trainer import replay
from verl_longshort.verl_plugin.trainer.dynamic_sampling import Draws
from verl_longshort.verl_plugin.trainer.failures import WINDOW, FailureCount
from verl_longshort.verl_plugin.trainer.replay import WatchedReplayBuffer


def test_a_run_survives_a_bounded_share(caplog: pytest.LogCaptureFixture) -> None:
    count = FailureCount(0.05)
    for step in range(200):
        count.begin(100)
        for number in range(5):
            count.add("engine", f"lost in step {step}, {number}")
        assert count.end() == {"engine": 5}
    assert len(caplog.records) == 1
    assert "lost in step 0, 0; later ones of this kind are only counted" in caplog.text


def test_a_few_at_once_are_survived_and_more_stop_the_run() -> None:
    count = FailureCount(0.05)
    count.begin(100)
    count.add("engine", "a server was busy", 50)
    count.end()
    count.begin(100)
    with pytest.raises(
        UserError, match=r"max_failed_share = 0\.05: 1 of the 100 .* \(51 in 2 steps, 50 in 10 steps may"
    ):
        count.add("grader", "no memory")
    for _ in range(WINDOW):
        count.begin(100)
        count.end()
    count.begin(100)
    count.add("engine", "again", 50)


@pytest.mark.parametrize("share", [0, 0.05, 1.0])
def test_a_step_without_any_trajectory_stops_the_run(share: float) -> None:
    count = FailureCount(share)
    count.begin(4)
    with pytest.raises(UserError, match=r"mostly \(engine\): ValueError: no; mend that, or raise the share") as caught:
        count.add("engine", "ValueError: no", 4)
    assert "\n" not in str(caught.value)


class Queue:
    """TransferQueue's metadata: partition -> key -> tag."""

    def __init__(self) -> None:
        self.content: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)

    def kv_list(self) -> dict[str, dict[str, dict[str, Any]]]:
        return {partition: dict(items) for partition, items in self.content.items()}

    def kv_clear(self, keys: Sequence[str], partition_id: str) -> None:
        for key in keys:
            self.content[partition_id].pop(key, None)

    async def async_kv_put(self, key: str, partition_id: str, tag: dict[str, Any]) -> None:
        self.content[partition_id][key] = tag

    def group(self, uid: str, sessions: Sequence[int], *, status: str = "finished", partition: str = "train") -> None:
        """A group that has ended, with the rows of these sessions."""
        self.content[partition][uid] = {"is_prompt": True, "status": status, "global_steps": 1}
        for session in sessions:
            for role in range(2):
                self.content[partition][f"{uid}_{session}_{role}"] = {"status": "success"}


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    made = Queue()
    for module in (replay, notes, replay_buffer):
        monkeypatch.setattr(module, "tq", made)
    return made


def buffer(n: int = 4, share: float = 0.5, timeout_s: float = 5) -> WatchedReplayBuffer:
    sampler = {"max_off_policy_threshold": None, "max_off_policy_strategy": "drop", "sampler_kwargs": {}}
    filtering = {"enable": False, "metric": "reward", "max_inflight_gen_batches": 1, "max_num_gen_batches": 3}
    config = {
        "algorithm": {"filter_groups": filtering},
        "data": {"train_batch_size": 2},
        "trainer": {"v1": {"sync": {}, "sampler": sampler}},
        "actor_rollout_ref": {"rollout": {"n": n, "val_kwargs": {"n": 1}}},
    }
    trainer: Any = SimpleNamespace(
        config=OmegaConf.create(config), trainer_mode="sync", _add_prompts_to_generate=lambda _: None
    )
    settings = {"timeout_s": timeout_s, "max_failed_share": share, "rows": 2, "prefix": "pair"}
    draws, names = Draws(), np.array(list("abcdef"), dtype=object)
    draws.number(tensordict_utils.get_tensordict({"index": names, "uid": names}), 1)
    return WatchedReplayBuffer(trainer, **settings, shared_value=lambda *_: None, draws=draws)


def fail(uid: str, session: int, error: Exception | None = None) -> None:
    asyncio.run(note_failure(error or RuntimeError("made to fail"), {"uid": uid, "session_id": session}))


def keys_of(batch: KVBatchMeta) -> set[str]:
    return {key.rsplit("_", 1)[0] for key in batch.keys}


def test_a_failed_trajectory_is_left_out_of_its_group(queue: Queue) -> None:
    queue.group("a", [0, 1, 3])
    fail("a", 2)
    queue.group("b", [0, 1, 2, 3])
    batch, metrics = buffer().sample(1, "train", 2)
    assert keys_of(batch) == {"a_0", "a_1", "a_3", "b_0", "b_1", "b_2", "b_3"}
    assert len(batch.keys) == 14
    assert metrics == {**dict.fromkeys((f"pair/failed/{k}" for k in FailureKind), 0), "pair/failed/other": 1} | {
        "pair/failed_groups": 0
    }
    assert not queue.content["failed"]


def test_a_group_that_lost_more_than_half_is_left_out(queue: Queue) -> None:
    queue.group("a", [3])
    for session in range(3):
        fail("a", session)
    queue.group("b", [0, 1, 2, 3])
    batch, metrics = buffer().sample(1, "train", 2)
    assert keys_of(batch) == {f"b_{i}" for i in range(4)}
    assert (metrics["pair/failed/other"], metrics["pair/failed_groups"]) == (3, 1)
    # nothing of it stays in the queue
    assert {key[0] for key in queue.content["train"]} == {"b"}


def test_a_session_that_verl_lost_is_counted(queue: Queue) -> None:
    queue.group("a", [0, 1], status="failure")
    queue.content["train"]["a_2_0"] = {"status": "success"}
    fail("a", 3)
    queue.group("b", [0, 1, 2, 3])
    batch, metrics = buffer().sample(1, "train", 2)
    assert keys_of(batch) == {"a_0", "a_1", "b_0", "b_1", "b_2", "b_3"}
    assert metrics["pair/failed/other"] == 2


def test_failures_of_a_validation_are_counted_apart(queue: Queue) -> None:
    queue.group("a", [], partition="val")
    fail("a", 0, ValueError("prompt"))
    queue.group("b", [0], partition="val")
    queue.group("c", [0], partition="val")
    own = buffer()
    batch, _ = own.sample(1, "val", 3)
    assert keys_of(batch) == {"b_0", "c_0"}
    assert own.validation_failures()["val/failed/other"] == 1
    assert own.validation_failures()["val/failed/other"] == 0


def test_too_many_stop_the_run_before_the_step_has_ended(queue: Queue) -> None:
    queue.group("a", [], status="running")
    queue.group("b", [], status="running")
    for session in range(2):
        with pytest.raises(TrajectoryError) as caught, failing_as(FailureKind.GRADER):
            raise RuntimeError("the answer grader did not start")
        fail("a", session, caught.value)
    with pytest.raises(UserError, match=r"max_failed_share = 0\.01: .*mostly \(grader\): RuntimeError: the answer gr"):
        buffer(share=0.01).sample(1, "train", 2)


def test_groups_that_are_all_lost_stop_the_run(queue: Queue) -> None:
    queue.group("a", [], status="failure")
    with pytest.raises(UserError, match=r"4 of the 4 trajectories of this step failed"):
        buffer(share=1.0).sample(1, "train", 1)


def test_a_lost_engine_is_no_matter_of_shares(queue: Queue) -> None:
    queue.group("a", [], status="running")
    died = ActorDiedError()
    fail("a", 0, RayTaskError("generate", "trace", died))
    with pytest.raises(RunDiedError, match="lost its engine: ActorDiedError"):
        buffer(share=1.0).sample(1, "train", 1)


def test_a_note_that_is_not_written_yet_waits(queue: Queue) -> None:
    queue.group("a", [0, 1, 3])
    queue.group("b", [0, 1, 2, 3], status="running")
    queue.content["failed"]["a_2"] = {}
    own = buffer()
    own._sync_metadata_from_transfer_queue()
    assert "a_2" in queue.content["failed"]
    fail("a", 2)
    queue.group("b", [0, 1, 2, 3])
    _, metrics = own.sample(1, "train", 2)
    assert metrics["pair/failed/other"] == 1
