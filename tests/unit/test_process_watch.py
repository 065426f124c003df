"""The watch over a run's processes: what it takes for a loss, what it says, and that it ends the run."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
from ray.core.generated import common_pb2

from verl_longshort.verl_plugin.run import activity, process_watch
from verl_longshort.verl_plugin.run.process_watch import ProcessWatch, actor_name, how_it_died

JOB, NODE = "01000000", "n" * 8


def actor(number: int, name: str = "", kind: str = "X", reason: str | None = None, pid: int = 0) -> dict[str, Any]:
    cause = common_pb2.ActorDeathCause()
    if reason is not None:
        cause.actor_died_error_context.reason = common_pb2.ActorDiedErrorContext.Reason.Value(reason)
        cause.actor_died_error_context.error_message = "connection\nclosed"
    return {
        "ActorID": f"id{number}",
        "ActorClassName": kind,
        "Name": name,
        "JobID": JOB,
        "Address": {"NodeID": NODE},
        "State": "ALIVE" if reason is None else "DEAD",
        "EndTime": number,
        "DeathCause": cause,
        "Pid": pid or os.getpid(),
    }


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Ray's table of actors."""
    actors: dict[str, dict[str, Any]] = {}
    context = SimpleNamespace(get_job_id=lambda: JOB, get_node_id=lambda: NODE)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(ray._private.state, "actors", lambda: dict(actors))
    monkeypatch.setattr(process_watch, "PERIOD_S", 0.02)
    monkeypatch.setattr(process_watch, "GRACE_S", 0.2)
    monkeypatch.setattr(process_watch, "STOPPED_S", 0.3)
    return actors


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield psutil.Process(process.pid)
        process.kill()


def watch(root: Path, *, own_cluster: bool = False, phase_timeout_s: float = 60.0, end: Any = None) -> ProcessWatch:
    return ProcessWatch(root, own_cluster=own_cluster, phase_timeout_s=phase_timeout_s, end_run=end or (lambda: None))


def started(seen: ProcessWatch) -> ProcessWatch:
    """Its threads, without the signal handler of the main thread."""
    one = threading.Thread(target=seen.start)
    one.start()
    one.join()
    return seen


@pytest.mark.parametrize(
    ("reason", "counts"),
    [("WORKER_DIED", True), ("RAY_KILL", False), ("OUT_OF_SCOPE", False), ("OWNER_DIED", False), ("NODE_DIED", False)],
)
def test_only_what_nobody_meant_counts(reason: str, counts: bool) -> None:
    assert how_it_died(actor(1, reason=reason)) == ("connection closed" if counts else None)
    assert how_it_died(actor(1)) is None


def test_processes_have_names_that_people_know() -> None:
    names = {
        "the task runner (process 7)": actor(1, kind="TaskRunnerV1", pid=7),
        "an agent-loop worker (process 7)": actor(1, "agent_loop_worker_0", "verl.x.AgentLoopWorkerTQ", pid=7),
        "the rollout server transformers_long_server_0_0 (process 7)": actor(1, "transformers_long_server_0_0", pid=7),
        "a storage unit of TransferQueue (process 7)": actor(1, kind="SimpleStorageUnit", pid=7),
        "Grader g (process 7)": actor(1, "g", "Grader", pid=7),
    }
    assert [actor_name(entry, {}) for entry in names.values()] == list(names)
    assert actor_name(actor(3, pid=7), {"id3": "worker rank 1 of the long policy"}).startswith("worker rank 1 of the l")


def test_the_first_death_is_told_and_the_run_is_ended(table: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    ended = threading.Event()
    table["id2"] = actor(2, kind="SimpleStorageUnit", reason="WORKER_DIED", pid=12)
    table["id1"] = actor(1, kind="AgentLoopWorkerTQ", reason="WORKER_DIED", pid=11)
    table["id0"] = actor(0, kind="Other", reason="RAY_KILL", pid=10)
    seen = started(watch(tmp_path, end=ended.set))
    lost = seen.lost(wait_s=5)
    assert lost is not None
    assert (lost.what, lost.how) == ("an agent-loop worker (process 11) died", "connection closed")
    assert ended.wait(5)
    seen.stop()


def test_a_stopped_process_is_told_and_killed(
    table: dict[str, dict[str, Any]], tmp_path: Path, sleeper: psutil.Process
) -> None:
    table["id1"] = actor(1, kind="TaskRunnerV1", pid=sleeper.pid)
    seen = started(watch(tmp_path))
    assert seen.lost(wait_s=0.5) is None
    sleeper.send_signal(signal.SIGSTOP)
    lost = seen.lost(wait_s=5)
    seen.stop()
    assert lost is not None
    assert lost.what == f"the task runner (process {sleeper.pid}) stands still"
    seen.end_processes()
    sleeper.wait(5)


def test_a_head_that_is_gone_interrupts_the_command(
    table: dict[str, dict[str, Any]], tmp_path: Path, sleeper: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where Ray answers nothing any more: neither the watch nor the main thread may wait for it."""
    held = SimpleNamespace(process=SimpleNamespace(pid=sleeper.pid))
    node = SimpleNamespace(all_processes={"gcs_server": [held]})
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    monkeypatch.setattr(ray._private.state, "actors", lambda: time.sleep(30))
    before = signal.getsignal(signal.SIGUSR1)
    seen = watch(tmp_path, own_cluster=True, end=lambda: time.sleep(30))
    try:
        seen.start()
        time.sleep(0.1)
        sleeper.kill()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(20)
        lost = seen.lost()
        assert lost is not None
        assert lost.what == f"Ray's head (gcs_server, process {sleeper.pid}) died"
    finally:
        seen.stop()
        signal.signal(signal.SIGUSR1, before)


def test_a_process_that_no_table_names_yet_is_killed_with_its_head(
    table: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"]) as raylet:
        while not (children := psutil.Process(raylet.pid).children()):
            time.sleep(0.01)
        node = SimpleNamespace(all_processes={"raylet": [SimpleNamespace(process=raylet)]})
        monkeypatch.setattr(ray._private.worker, "_global_node", node)
        seen = started(watch(tmp_path, own_cluster=True))
        time.sleep(0.5)
        raylet.kill()
        assert seen.lost(wait_s=5) is not None
        seen.stop()
        seen.end_processes()
        (child,) = children
        child.wait(5)


def test_a_phase_that_does_not_end_is_told(table: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    file = activity.ActivityFile(tmp_path, total=6)
    file.now(3, activity.GENERATING)
    seen = started(watch(tmp_path, phase_timeout_s=0.3))
    assert seen.lost(wait_s=0.8) is None
    file.now(3, "long learns")
    lost = seen.lost(wait_s=5)
    seen.stop()
    assert lost is not None
    assert "longshort.phase_timeout_s = 0.3 s" in lost.how


def test_a_ray_that_does_not_answer_is_no_loss(
    table: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray._private.state, "actors", lambda: 1 / 0)
    seen = started(watch(tmp_path))
    assert seen.lost(wait_s=0.2) is None
    monkeypatch.setattr(ray._private.state, "actors", lambda: {"id1": actor(1, reason="WORKER_DIED")})
    assert seen.lost(wait_s=5) is not None
    seen.stop()
