"""verl's vLLM rollout for two policies: names, sampling keys, and what preflight lets through.

verl's vLLM modules cannot be imported without vLLM; stand-ins of the classes we extend take their place here,
and `tests/contract/test_vllm_contract.py` holds them against verl's source.
"""

import asyncio
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES
from verl.workers.config import RolloutConfig
from verl.workers.rollout.base import _ROLLOUT_REGISTRY

from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import settings_of
from verl_longshort.engines.vllm import turn_seed
from verl_longshort.verl_plugin.checks.policy_config import build_policy_configs, place_engine
from verl_longshort.verl_plugin.checks.preflight import check_installed, check_rollouts
from verl_longshort.verl_plugin.rollout import names
from verl_longshort.verl_plugin.rollout.clients import ServedPolicy
from verl_longshort.verl_plugin.rollout.registry import ROLLOUTS

JOB = "01000000"
UNUSED = ("reward.reward_model",)


def rollout(role: str | None) -> RolloutConfig:
    return RolloutConfig(name="vllm", custom={"role": role} if role else None)


# ---------------------------------------------------------------- names


def verls_socket(job: str, replica: int = 0, rank: int = 0) -> str:
    return f"ipc:///tmp/rl-colocate-zmq-{job}-replica-{replica}-rank-{rank}.sock"


class Adapter:
    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        self.config = config
        self.zmq_handle = verls_socket(JOB)


class Server:
    def __init__(self, config: Any) -> None:
        self.config = config
        os.environ["VERL_RAY_JOB_ID"] = JOB

    def _get_worker_extension_cls(self) -> str:
        return "verls.Extension"


class Replica:
    def __init__(self, replica_rank: int, config: Any) -> None:
        self.config = config


@pytest.fixture
def on_stand_ins(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Our adapter module and replica module over the stand-ins above."""
    package = "verl.workers.rollout.vllm_rollout"
    for name, content in {
        package: {"ServerAdapter": Adapter},
        f"{package}.vllm_async_server": {"vLLMHttpServer": Server, "vLLMReplica": Replica},
        "vllm.platforms": {"current_platform": SimpleNamespace(is_cpu=lambda: False)},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    for ours in ("vllm_adapter", "vllm_replica"):
        monkeypatch.delitem(sys.modules, f"verl_longshort.verl_plugin.rollout.{ours}", raising=False)
    monkeypatch.setenv("VERL_RAY_JOB_ID", "")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: JOB))
    found = [
        importlib.import_module(f"verl_longshort.verl_plugin.rollout.{n}") for n in ("vllm_adapter", "vllm_replica")
    ]
    for ours in ("vllm_adapter", "vllm_replica"):
        monkeypatch.delitem(sys.modules, f"verl_longshort.verl_plugin.rollout.{ours}")
    return found[0], found[1]


@pytest.mark.parametrize("role", [None, "long", "short"])
def test_trainer_and_workers_meet_on_one_socket(on_stand_ins: tuple[Any, Any], role: str | None) -> None:
    adapters, replicas = on_stand_ins
    sender = adapters.VllmAdapter(rollout(role), None, None)
    replicas.VllmServer(rollout(role))
    receiver = verls_socket(os.environ["VERL_RAY_JOB_ID"])  # as verl's worker builds it
    assert sender.zmq_handle == receiver
    assert (role or "") in sender.zmq_handle


def test_without_a_role_names_are_verls(on_stand_ins: tuple[Any, Any]) -> None:
    adapters, replicas = on_stand_ins
    adapter, replica = adapters.VllmAdapter(rollout(None), None, None), replicas.VllmReplica(0, rollout(None))
    assert adapter._get_server_name_prefix() == replica._get_server_name_prefix() == "vllm_"
    assert adapter.zmq_handle == verls_socket(JOB)


def test_two_policies_share_no_name(on_stand_ins: tuple[Any, Any]) -> None:
    adapters, replicas = on_stand_ins
    made = [adapters.VllmAdapter(rollout(str(role)), None, None) for role in ROLES]
    assert len({adapter.zmq_handle for adapter in made}) == 2
    prefixes = {replicas.VllmReplica(0, rollout(str(role)))._get_server_name_prefix() for role in ROLES}
    assert prefixes == {"vllm_long_", "vllm_short_"} == {a._get_server_name_prefix() for a in made}


def test_the_replica_starts_our_server(on_stand_ins: tuple[Any, Any]) -> None:
    _, replicas = on_stand_ins
    made = replicas.VllmReplica(0, rollout("long")).server_class
    assert made.__ray_metadata__.modified_class.__name__ == "VllmServer"


def test_workers_of_the_build_for_cpus_have_an_extension_of_ours(
    on_stand_ins: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, replicas = on_stand_ins
    server = replicas.VllmServer(rollout("long"))
    assert server._get_worker_extension_cls() == "verls.Extension"
    monkeypatch.setattr(replicas.current_platform, "is_cpu", lambda: True)
    module, _, name = server._get_worker_extension_cls().rpartition(".")
    source = importlib.util.find_spec(module).origin  # type: ignore[union-attr]
    assert f"\nclass {name}(" in Path(str(source)).read_text(encoding="utf-8")


def test_a_path_without_the_job_is_refused() -> None:
    with pytest.raises(RuntimeError, match="does not name the job"):
        names.socket_of_role("ipc:///tmp/weights-0.sock", JOB, rollout("long"))


@given(replica=st.integers(0, 999), rank=st.integers(0, 63), job=st.integers(1, 2**31))
def test_sockets_differ_by_role_replica_and_rank(replica: int, rank: int, job: int) -> None:
    places = [(replica, rank), (replica + 1, rank), (replica, rank + 1)]
    name = f"{job:08x}"
    sockets = [
        names.socket_of_role(verls_socket(name, *place), name, rollout(str(role)))
        for role in ROLES
        for place in places
        if name not in f"{place[0]}-{place[1]}"
    ]
    assert len(set(sockets)) == len(sockets)
    assert all(len(socket.removeprefix("ipc://")) < 107 for socket in sockets)  # the kernel's limit


@pytest.mark.parametrize("name", ROLLOUTS)
def test_the_registry_names_classes_that_exist(name: str) -> None:
    for path in (ROLLOUTS[name].replica, ROLLOUTS[name].adapter):
        module, _, kind = path.rpartition(".")
        source = importlib.util.find_spec(module).origin  # type: ignore[union-attr]
        assert f"\nclass {kind}(" in Path(str(source)).read_text(encoding="utf-8")


def test_the_plugin_puts_ours_in_verls_place() -> None:
    assert _ROLLOUT_REGISTRY["vllm", "async"] == "verl_longshort.verl_plugin.rollout.vllm_adapter.VllmAdapter"


# ---------------------------------------------------------------- sampling keys


class Client:
    """verl's client; keeps what it was asked."""

    def __init__(self, engine: str) -> None:
        rollout = SimpleNamespace(name=engine)
        self.config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=rollout))
        self.asked: dict[str, Any] = {}

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: Any) -> Any:
        self.asked = sampling_params
        return SimpleNamespace(token_ids=[1], log_probs=[-1.0], stop_reason="completed", extra_fields={})


@pytest.mark.parametrize(
    ("engine", "changes"),
    [("transformers", {}), ("vllm", {"seed": turn_seed(5, 3), "skip_special_tokens": False})],
)
def test_keys_fit_the_engine(engine: str, changes: dict[str, Any]) -> None:
    client = Client(engine)
    sampling = {"temperature": 0.9, "seed": 5, "stop": ["</think>"], "max_tokens": 4, "logprobs": True}
    policy = ServedPolicy(client)  # type: ignore[arg-type]
    made = asyncio.run(policy(request_id="r", prompt_ids=[7, 8, 9], sampling=sampling))
    assert client.asked == {**sampling, **changes}
    assert made.finish_reason == "stop"


# ---------------------------------------------------------------- preflight


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 8192}))
    return tmp_path


def policies(model: Path, *overrides: str) -> dict[str, Any]:
    paths = [f"longshort.policies.{role}.actor_rollout_ref.model.path={model}" for role in ROLES]
    data = ["data.train_files=a", "data.val_files=a"]
    config = compose_config("longshort_trainer", [*paths, *data, *overrides], unused=UNUSED)
    return build_policy_configs(config, settings_of(config).schedule)


def check(model: Path, *overrides: str, shared: bool = True, device: str = "cuda") -> None:
    check_rollouts(policies(model, *overrides), shared=shared, device=device)


def test_both_roles_on_vllm_pass(model: Path) -> None:
    made = policies(model)
    check_rollouts(made, shared=True, device="cuda")
    for role in ROLES:
        chosen = made[role]["actor_rollout_ref"]["rollout"]
        assert (chosen["name"], chosen["custom"]) == ("vllm", {"role": role.value})
        assert (chosen["tensor_model_parallel_size"], chosen["gpu_memory_utilization"]) == (1, 0.4)
        assert chosen["load_format"] == "dummy"


def test_rows_decide_the_length_that_vllm_reserves_memory_for(model: Path) -> None:
    roles = policies(model, "+longshort.policies.short.actor_rollout_ref.rollout.name=transformers")
    lengths = {role: made["actor_rollout_ref"]["rollout"]["max_model_len"] for role, made in roles.items()}
    assert lengths == {"long": 1024 + 4096, "short": None}
    longer = policies(model, f"{ROLLOUT}.max_model_len=8192")
    assert longer["long"]["actor_rollout_ref"]["rollout"]["max_model_len"] == 8192


def test_vllm_on_a_cpu_needs_no_keys(model: Path) -> None:
    made = policies(model, "device=cpu", f"{ROLLOUT}.name=vllm")
    for role in ROLES:
        chosen = made[role]["actor_rollout_ref"]["rollout"]
        for key in ("free_cache_engine", "enable_sleep_mode", "enable_chunked_prefill"):
            assert chosen[key] is False
        assert chosen["engine_kwargs"]["vllm"] == {"kv_cache_memory_bytes": 2**30}
    check_rollouts(made, shared=True, device="cpu")
    mine = policies(model, "device=cpu", f"{ROLLOUT}.engine_kwargs.vllm.kv_cache_memory_bytes=5")
    assert mine["long"]["actor_rollout_ref"]["rollout"]["engine_kwargs"]["vllm"]["kv_cache_memory_bytes"] == 5
    # transformers sleeps there, too
    assert policies(model, "device=cpu")["long"]["actor_rollout_ref"]["rollout"]["free_cache_engine"] is True


def test_a_single_model_on_a_cpu_needs_no_keys_either(model: Path) -> None:
    given = [f"longshort.model={model}", "data.train_files=a", "data.val_files=a"]
    config = compose_config("single_trainer", [*given, "device=cpu", f"{ROLLOUT}.name=vllm"], unused=UNUSED)
    place_engine(config)
    chosen = config.actor_rollout_ref.rollout
    assert (chosen.free_cache_engine, chosen.enable_sleep_mode, chosen.enable_chunked_prefill) == (False,) * 3
    assert chosen.max_model_len == config.data.max_prompt_length + config.data.max_response_length


def test_one_engine_of_each_kind_passes(model: Path) -> None:
    check(model, "+longshort.policies.long.actor_rollout_ref.rollout.name=transformers")


def test_a_policy_that_only_serves_loads_its_weights(model: Path) -> None:
    served = "+longshort.policies.short.actor_rollout_ref.rollout"
    made = policies(model, "longshort.schedule=[long]", f"{served}.nnodes=1", f"{served}.n_gpus_per_node=1")
    assert made["short"]["actor_rollout_ref"]["rollout"]["load_format"] == "auto"
    assert made["long"]["actor_rollout_ref"]["rollout"]["load_format"] == "dummy"
    # it has devices of its own, so memory need not be divided
    check_rollouts(made, shared=True, device="cuda")


ROLLOUT = "actor_rollout_ref.rollout"
REFUSED = {
    "rollout.name = sglang: a pair's engines are vllm or transformers": [f"{ROLLOUT}.name=sglang"],
    "gpu_memory_utilization = 0.5 + 0.5: both engines": [f"{ROLLOUT}.gpu_memory_utilization=0.5"],
    "disaggregation.enabled = True": [f"{ROLLOUT}.disaggregation.enabled=true"],
    "prometheus.enable = True": [f"{ROLLOUT}.prometheus.enable=true"],
    "enable_sleep_mode = False": [f"{ROLLOUT}.enable_sleep_mode=false"],
    "max_response_length = 9216: the model of the long policy has 8192": ["data.max_response_length=8192"],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_work_is_told_before_anything_starts(model: Path, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check(model, *REFUSED[message])
    assert message in str(caught.value)


def test_pools_of_their_own_may_use_all_memory(model: Path) -> None:
    check(model, f"{ROLLOUT}.gpu_memory_utilization=0.9", shared=False)


def test_vllm_must_be_there(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = policies(model)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="vLLM is not installed"):
        check_installed(made)
    monkeypatch.setenv("LONGSHORT_DRY_RUN", str(tmp_path))
    check_installed(made)
