"""The CPU platform: when it answers, what verl finds behind it, and how the process group is opened."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from longshort_reward.errors import UserError
from verl.plugin.platform.platform_manager import PlatformRegistry
from verl.utils.distributed import initialize_global_process_group_ray

from verl_longshort.verl_plugin import plugin
from verl_longshort.verl_plugin.platform import device_module
from verl_longshort.verl_plugin.platform.cpu import (
    GROUP_VARIABLES,
    PLATFORM_NAME,
    VLLM_THREADS,
    PlatformCPU,
    open_process_group,
)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No place in a group given, and no group left open afterwards."""
    for name in (*GROUP_VARIABLES, "WG_BACKEND", "DIST_INIT_METHOD"):
        # Set first: that makes monkeypatch restore also what the code under test sets.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield monkeypatch
    if dist.is_initialized():
        dist.destroy_process_group()


def register(monkeypatch: pytest.MonkeyPatch, **platforms: object) -> None:
    monkeypatch.setattr(PlatformRegistry, "_platforms", {PLATFORM_NAME: PlatformCPU, **platforms})


def accelerator(answer: bool) -> object:
    return lambda: SimpleNamespace(is_platform_available=lambda use_smi_check: answer)


def broken() -> object:
    raise OSError("driver")


@pytest.mark.parametrize("answer", [True, False])
def test_answers_only_where_no_accelerator_does(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    register(monkeypatch, later=accelerator(answer))
    assert PlatformCPU().is_platform_available(use_smi_check=True) is not answer


def test_a_probe_that_raises_counts_as_absent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    register(monkeypatch, broken=broken)
    assert PlatformCPU().is_platform_available()
    assert "'broken'" in caplog.text
    assert "driver" in caplog.text


def test_is_registered_with_verl() -> None:
    assert plugin.LOAD_ERROR is None
    assert PlatformRegistry.get(PLATFORM_NAME) is PlatformCPU


def test_a_load_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin.raise_load_error()
    monkeypatch.setattr(plugin, "LOAD_ERROR", ImportError("wrapt"))
    with pytest.raises(RuntimeError, match="wrapt"):
        plugin.raise_load_error()


@pytest.mark.parametrize(("policy", "loads"), [("auto", True), ("a, LongShort", True), ("none", False)])
def test_a_policy_that_leaves_the_plugin_out_is_told(monkeypatch: pytest.MonkeyPatch, policy: str, loads: bool) -> None:
    monkeypatch.setenv(plugin.POLICY_VARIABLE, policy)
    with nullcontext() if loads else pytest.raises(UserError, match=plugin.POLICY_VARIABLE):
        plugin.raise_load_error()


def test_device_module_is_torch_cpu_with_memory_and_generator() -> None:
    assert device_module.is_available()
    assert device_module.memory_allocated() > 1_000_000
    assert device_module.max_memory_allocated() > 1_000_000
    free, total = device_module.mem_get_info()
    assert 0 < free <= total
    state = device_module.get_rng_state()
    first = torch.rand(3)
    device_module.set_rng_state(state)
    assert torch.equal(first, torch.rand(3))
    with pytest.raises(AttributeError):
        device_module.no_such_function()


KEEPS_FREED_MEMORY = """
import torch
from verl_longshort.verl_plugin.platform import device_module

blocks = [torch.ones(2**18) for _ in range(300)]  # of 1 MiB
last = torch.ones(2**18)  # above them: the heap cannot shrink
del blocks
kept = device_module.memory_allocated()
device_module.empty_cache()
print(kept - device_module.memory_allocated())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_an_emptied_cache_gives_freed_memory_back() -> None:
    tunables = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
    process = subprocess.run(
        [sys.executable, "-c", KEEPS_FREED_MEMORY],
        env={**os.environ, "GLIBC_TUNABLES": tunables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(process.stdout) > 250 * 2**20


def test_a_process_alone_becomes_a_group_of_one(alone: pytest.MonkeyPatch) -> None:
    open_process_group()
    assert (dist.get_rank(), dist.get_world_size()) == (0, 1)
    assert dist.get_backend() == "cpu:gloo"


def test_half_a_place_is_refused(alone: pytest.MonkeyPatch) -> None:
    alone.setenv("RANK", "0")
    alone.setenv("MASTER_PORT", "1")
    with pytest.raises(UserError, match="WORLD_SIZE, MASTER_ADDR = not set"):
        open_process_group()
    assert not dist.is_initialized()


def test_backend_name_alone_opens_no_group(alone: pytest.MonkeyPatch) -> None:
    assert PlatformCPU().communication_backend_name() == "gloo"
    assert not dist.is_initialized()


def test_ray_worker_gets_past_verls_refused_backend(alone: pytest.MonkeyPatch) -> None:
    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in place.items():
        alone.setenv(name, value)
    with pytest.raises(ValueError, match="Duplicate device type"):
        initialize_global_process_group_ray()
    alone.setenv("WG_BACKEND", "ray")
    initialize_global_process_group_ray()
    assert dist.get_world_size() == 1


def test_servers_bind_no_threads_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VLLM_THREADS, raising=False)
    assert PlatformCPU().rollout_env_vars() == {VLLM_THREADS: "nobind"}
    monkeypatch.setenv(VLLM_THREADS, "0-3")
    assert PlatformCPU().rollout_env_vars() == {VLLM_THREADS: "0-3"}
