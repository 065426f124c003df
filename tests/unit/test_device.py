"""Which of the machine's cores a model takes."""

from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from verl_longshort.base import device


def core(idle: float, nice: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(idle=idle, iowait=0.0, nice=nice)


@pytest.mark.parametrize(
    ("cores", "mine", "free"),
    [
        ([core(99.0), core(98.0)], {0, 1}, 2),
        ([core(99.0), core(3.0)], {0, 1}, 1),
        ([core(2.0), core(3.0)], {0, 1}, 1),
        ([core(2.0, nice=98.0), core(90.0)], {0, 1}, 2),
        ([core(99.0)] * 4, {2}, 1),
    ],
)
def test_cores_with_other_work_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, cores: list[SimpleNamespace], mine: set[int], free: int
) -> None:
    monkeypatch.setattr(psutil, "cpu_times_percent", lambda interval, percpu: cores)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: mine)
    assert device.free_cores() == free


def test_the_environment_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[Any] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(device, "free_cores", lambda: 3)
    monkeypatch.setenv(device.THREADS_VARIABLE, "8")
    device.use_free_cores()
    assert chosen == []
    monkeypatch.delenv(device.THREADS_VARIABLE)
    device.use_free_cores()
    assert chosen == [3]


@pytest.mark.parametrize(
    ("instructions", "computes"),
    [
        ({"avx2": True, "avx512_bf16": False}, False),
        ({"avx512_bf16": True}, False),
        ({"avx512_bf16": True, "amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
    ],
)
def test_a_cpu_computes_in_bfloat16_if_its_instructions_are_worth_using(
    monkeypatch: pytest.MonkeyPatch, instructions: dict[str, bool], computes: bool
) -> None:
    monkeypatch.setenv(device.PLATFORM_VARIABLE, device.CPU)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert device.computes_in_bfloat16() is computes
