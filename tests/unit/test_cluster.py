"""Which Ray cluster a run uses, what it must have, and what is said of one that lost a node."""

import importlib.metadata
import time
from types import SimpleNamespace

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.errors import UserError
from longshort_reward.protocol import Role
from omegaconf import OmegaConf
from ray.exceptions import RayTaskError

from verl_longshort.base.checkpoint import CheckpointStore, PairState
from verl_longshort.verl_plugin.checks import preflight
from verl_longshort.verl_plugin.run import activity, cluster, watch
from verl_longshort.verl_plugin.run.runner import root_cause


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def config(address=None, nnodes=1, device="cpu", **ray_init):
    own = {"num_cpus": 16, "num_gpus": 1, "include_dashboard": False, "address": address, **ray_init}
    trainer = {"nnodes": nnodes, "n_gpus_per_node": 2, "device": device}
    return OmegaConf.create({"ray_kwargs": {"ray_init": own}, "trainer": trainer})


def node(name, gpus=1, cpus=16, alive=True):
    has = {"GPU": float(gpus), "CPU": float(cpus)}
    return {"NodeID": name * 8, "NodeManagerAddress": f"10.0.0.{name}", "Alive": alive, "Resources": has}


# ---- which cluster -------------------------------------------------------------------------------------


def test_a_run_has_a_cluster_of_its_own_unless_told():
    made = config()
    cluster.point_at_cluster(made, pools=2)
    assert made.ray_kwargs.ray_init == {
        "num_cpus": 16,
        "num_gpus": 4,
        "include_dashboard": False,
        "address": "local",
    }
    assert cluster.requested_address(made) is None


def test_a_policy_that_only_serves_has_slots_of_its_own():
    made = config()
    rollouts = {"long": {"nnodes": 0, "n_gpus_per_node": 2}, "short": {"nnodes": 1, "n_gpus_per_node": 1}}
    made.longshort = {"policy_configs": {k: {"actor_rollout_ref": {"rollout": v}} for k, v in rollouts.items()}}
    cluster.point_at_cluster(made, pools=1)
    assert made.ray_kwargs.ray_init.num_gpus == 3


@pytest.mark.parametrize(
    ("key", "variable", "joined"),
    [("a:1", None, "a:1"), (None, "b:1", "b:1"), ("a:1", "b:1", "a:1"), ("auto", "b:1", "b:1")],
)
def test_an_existing_cluster_by_key_or_variable(monkeypatch, key, variable, joined):
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    made = config(key)
    cluster.point_at_cluster(made, pools=1)
    # Ray refuses sizes for a cluster that has its own
    assert made.ray_kwargs.ray_init == {"address": joined}
    assert cluster.requested_address(made) == joined


def test_a_named_local_cluster_is_not_the_variables(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "b:1")
    assert cluster.requested_address(config("local")) is None


def test_several_nodes_need_an_address():
    with pytest.raises(UserError, match="RAY_ADDRESS"):
        preflight.check_devices(config(nnodes=2), pools=1)
    preflight.check_devices(config("a:1", nnodes=2), pools=1)


def test_gpus_of_another_machine_are_not_looked_for_here():
    preflight.check_devices(config("a:1", device="cuda"), pools=64)


def test_the_environment_goes_along_without_secrets():
    made = config("a:1", runtime_env={"env_vars": {"HF_HOME": "/theirs"}, "pip": ["x"]})
    given_here = {"HF_HOME": "/ours", "HF_TOKEN": "s", "WANDB_API_KEY": "s", "VERL_PLATFORM": "cpu"}
    cluster.carry_environment(made, {**given_here, "PYTHONPATH": "/code", "HOME": "/root"})
    assert made.ray_kwargs.ray_init.runtime_env == {
        "pip": ["x"],
        "env_vars": {"HF_HOME": "/theirs", "VERL_PLATFORM": "cpu", "PYTHONPATH": "/code"},
    }
    alone = config()
    cluster.carry_environment(alone, given_here)
    assert "runtime_env" not in alone.ray_kwargs.ray_init


# ---- what it must have ---------------------------------------------------------------------------------


def test_too_few_nodes_devices_or_cpus_are_named():
    cluster.check_capacity([node("1"), node("2")], [1, 1], "a:1")
    for there in ([node("1")], [node("1"), node("2", alive=False)], [node("1"), node("2", cpus=2)], []):
        with pytest.raises(UserError, match=r"trainer.nnodes x trainer.n_gpus_per_node = 2 x 1.*a:1"):
            cluster.check_capacity(there, [1, 1], "a:1")
    with pytest.raises(UserError, match=r"1 GPUs and 16 CPUs on 10\.0\.0\.1"):
        cluster.check_capacity([node("1")], [2], "a:1")


@given(st.lists(st.integers(0, 8), max_size=5), st.integers(1, 4), st.integers(0, 6), st.integers(0, 24))
def test_equal_groups_fit_just_when_the_nodes_hold_as_many(gpus, size, count, cpus):
    there = [node(str(i), gpus=g, cpus=cpus) for i, g in enumerate(gpus)]
    holds = sum(min(g, cpus // 3) // size for g in gpus)
    if count <= holds:
        cluster.check_capacity(there, [size] * count, "a:1")
    else:
        with pytest.raises(UserError):
            cluster.check_capacity(there, [size] * count, "a:1")


def answers(monkeypatch, **found):
    versions = {package: importlib.metadata.version(package) for package in cluster.PACKAGES}
    answer = {"versions": versions, "unseen": []} | found
    monkeypatch.setattr(cluster, "_ask", lambda asked, paths: [("10.0.0.2", answer)])


def test_a_node_without_the_package_or_with_another_version(monkeypatch, tmp_path):
    answers(monkeypatch, versions={"verl-longshort": None})
    with pytest.raises(UserError, match=r"verl-longshort on node 10.0.0.2 = not installed: this machine has"):
        cluster.check_nodes([], tmp_path, {})
    answers(monkeypatch, versions={"verl": "0.4"})
    with pytest.raises(UserError, match=r"verl on node 10.0.0.2 = 0.4"):
        cluster.check_nodes([], tmp_path, {})


def test_a_folder_or_model_that_a_node_does_not_see(monkeypatch, tmp_path):
    seen_here = []
    monkeypatch.setattr(cluster, "_ask", lambda asked, paths: seen_here.extend(paths) or [])
    cluster.check_nodes([], tmp_path / "run", {"long.path": str(tmp_path), "short.path": "Qwen/Qwen2.5-7B"})
    # a token in the run's folder and the one local model; nothing is left behind
    assert seen_here[0].startswith(str(tmp_path / "run" / ".seen-by-all-"))
    assert seen_here[1:] == [str(tmp_path)]
    assert list((tmp_path / "run").iterdir()) == []

    answers(monkeypatch, unseen=[str(tmp_path)])
    with pytest.raises(UserError, match=r"long.path = .*node 10.0.0.2 has no such folder"):
        cluster.check_nodes([], tmp_path / "run", {"long.path": str(tmp_path)})
    monkeypatch.setattr(cluster, "_ask", lambda asked, paths: [("n", {"versions": {}, "unseen": paths})])
    with pytest.raises(UserError, match=r"trainer.default_local_dir = .*node n does not see"):
        cluster.check_nodes([], tmp_path / "run", {})


def test_the_question_sees_files_that_come_late_and_packages(tmp_path):
    found = cluster._question()([str(tmp_path), str(tmp_path / "no")], ["verl", "no-such-package"], 0.1)
    assert found["unseen"] == [str(tmp_path / "no")]
    assert found["versions"] == {"verl": importlib.metadata.version("verl"), "no-such-package": None}


def test_another_run_or_job_on_the_cluster_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "FREE_S", 0.0)
    monkeypatch.setattr(cluster.time, "sleep", lambda _: None)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="a:1"))
    named = [{"name": "TransferQueueController", "namespace": "transfer_queue"}]
    monkeypatch.setattr(ray.util, "list_named_actors", lambda all_namespaces: named)
    with pytest.raises(UserError, match="another run of verl"):
        cluster.wait_until_free(2)
    named.clear()
    monkeypatch.setattr(ray, "available_resources", lambda: {"GPU": 1.0})
    with pytest.raises(UserError, match="only 1 of the cluster's devices are free"):
        cluster.wait_until_free(2)
    cluster.wait_until_free(1)


# ---- what is said --------------------------------------------------------------------------------------


def saved(root, step):
    store = CheckpointStore(root)
    store.pair_folder(step).mkdir(parents=True)
    store.commit(PairState(step=step, schedule=["long"], steps_per_round=9))


def test_activity_is_read_back_and_forgotten(tmp_path):
    file = activity.ActivityFile(tmp_path, total=6)
    file.set_ranks({Role.LONG: ["a", "b"], Role.SHORT: ["a", "b"]})
    file.now(3, "long learns")
    noted = activity.read(tmp_path)
    assert noted == activity.Activity(
        step=3, total=6, doing="long learns", ranks={"long": ["a", "b"], "short": ["a", "b"]}
    )
    assert noted.on_node("b") == ["long rank 1", "short rank 1"]
    activity.forget(tmp_path)
    assert activity.read(tmp_path) is None
    activity.forget(tmp_path)


def test_a_lost_nodes_report(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    file = activity.ActivityFile(tmp_path, total=6)
    file.set_ranks({Role.LONG: ["a", "b"]})
    file.now(3, "long learns")
    saved(tmp_path, 2)
    lost = watch.LostNode(id="b", name="10.0.0.2 (b)", reason="health check failed")
    command = ("longshort", "train", "trainer.nnodes=2", "longshort.schedule=[long, short]")
    text = str(watch.node_failure([lost], tmp_path, command, "10.0.0.1:6379"))
    for words in (
        "node 10.0.0.2 (b) of the Ray cluster died in step 3 of 6: long learns",
        "long rank 1",
        "health check failed",
        f"step 2 in {tmp_path}",
        "`ray start --address=10.0.0.1:6379`",
        "RAY_ADDRESS=10.0.0.1:6379 longshort train trainer.nnodes=2 'longshort.schedule=[long, short]'",
    ):
        assert words in text
    assert "long rank 0" not in text


def test_a_report_before_anything_was_saved(tmp_path):
    lost = watch.LostNode(id="b", name="n", reason="")
    text = str(watch.node_failure([lost], tmp_path, (), "a:1"))
    assert "the run begins anew" in text
    assert text.endswith("the same command")
    assert "a process of the run died" in str(watch.process_failure(ValueError("x\ny"), tmp_path, ()))


def test_the_cause_below_tasks_that_waited_for_it():
    below = UserError("k", "v", "r")
    inner = RayTaskError("f", "trace", below)
    assert root_cause(RayTaskError("g", "trace", inner)) is below
    assert root_cause(below) is below


# ---- the watch -----------------------------------------------------------------------------------------


def soon(what):
    """Whether `what()` comes true within ten seconds; this machine may be busy."""
    ends = time.monotonic() + 10
    while not what() and time.monotonic() < ends:
        time.sleep(0.01)
    return what()


@pytest.fixture
def watched(monkeypatch):
    """A cluster of three nodes, the run on the first two; and whether the run was ended."""
    there = [node("1"), node("2"), node("3")]
    ended = []
    monkeypatch.setattr(watch, "PERIOD_S", 0.01)
    monkeypatch.setattr(watch, "GRACE_S", 1.0)
    monkeypatch.setattr(watch, "_nodes_of_this_job", lambda: {"1" * 8, "2" * 8})
    monkeypatch.setattr(ray, "nodes", lambda: there)
    seen = watch.NodeWatch(lambda: ended.append(True))
    seen.start()
    assert soon(lambda: seen._used)
    yield there, seen, ended
    seen.stop()


def test_a_nodes_death_ends_a_run_that_does_not_end_itself(watched):
    there, seen, ended = watched
    assert seen.lost() == []
    there[1] |= {"Alive": False, "DeathReasonMessage": "health\ncheck"}
    lost = seen.lost(wait_s=5)
    assert [(n.id, n.name, n.reason) for n in lost] == [("22222222", "10.0.0.2 (22222222)", "health check")]
    assert soon(lambda: ended)
    assert ended == [True]


def test_a_node_without_any_part_of_the_run_may_go(watched):
    there, seen, ended = watched
    there[2]["Alive"] = False
    assert seen.lost(wait_s=0.4) == []
    assert not ended


def test_a_cluster_that_does_not_answer_does_not_end_the_watch(watched, monkeypatch):
    there, seen, _ = watched
    answer = ray.nodes

    def fails():
        raise RuntimeError("unavailable")

    monkeypatch.setattr(ray, "nodes", fails)
    time.sleep(0.1)
    there[0]["Alive"] = False
    monkeypatch.setattr(ray, "nodes", answer)
    assert [n.id for n in seen.lost(wait_s=5)] == ["1" * 8]


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_that_is_too_long_for_rays_sockets(name, tmp_path):
    short = "/tmp/" + "x" * 34
    cluster.check_sockets(config(), {name: short})
    cluster.check_sockets(config(), {"TMPDIR": f"{short}y", "RAY_TMPDIR": "/tmp"})
    cluster.check_sockets(config("a:1"), {name: f"{short}y"})
    with pytest.raises(UserError) as error:
        cluster.check_sockets(config(), {name: f"{short}y"})
    remedy = f"Ray's sockets need a folder of at most 39 bytes: set {name}=/tmp, or another short folder"
    assert (error.value.key, error.value.remedy) == (name, remedy)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="Ray cannot write there"):
        cluster.check_sockets(config(), {name: "/proc/1"})


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no-such-host.invalid:6379", "nonsense"])
def test_a_cluster_that_is_gone_is_named_at_once(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    config = OmegaConf.create({"ray_kwargs": {"ray_init": {"address": None}}})
    started = time.monotonic()
    with pytest.raises(
        UserError, match=r"RAY_ADDRESS or ray_kwargs.ray_init.address = .*does the cluster run"
    ) as caught:
        cluster.check_reachable(config)
    assert address in str(caught.value)
    assert time.monotonic() - started < 20
    monkeypatch.delenv("RAY_ADDRESS")
    cluster.check_reachable(config)
