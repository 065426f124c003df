"""What of this machine commands use: its GPUs, or so many of its cores. Light: torch is imported only to look."""

import os

import psutil

PLATFORM_VARIABLE = "VERL_PLATFORM"
"""verl's choice of a platform; `cpu` leaves the GPUs alone, in verl and in the engines of this package."""
CPU = "cpu"
THREADS_VARIABLE = "OMP_NUM_THREADS"
"""Threads of torch and its libraries; where it is set, nobody else chooses."""

_BF16_INSTRUCTIONS = ("amx_bf16", "bf16")
"""Not avx512_bf16: with it torch 2.13 multiplied matrices at about half the speed of float32. Others: not measured."""
_LOOK_S = 0.3
_FREE_PERCENT = 50


def cpu_chosen() -> bool:
    """Whether the environment says to leave the GPUs alone."""
    return os.environ.get(PLATFORM_VARIABLE, "").strip().lower() == CPU


def finds_gpu() -> bool:
    """Whether models of this process go to a GPU."""
    if cpu_chosen():
        return False
    import torch

    return torch.cuda.is_available()


def computes_in_bfloat16() -> bool:
    """Whether the device of this process's models has instructions for bfloat16 that are worth using."""
    import torch

    if finds_gpu():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    can = torch.cpu.get_capabilities()
    return any(can.get(name, False) for name in _BF16_INSTRUCTIONS)


def use_free_cores() -> None:
    """Limit torch's threads to the cores that are free now, unless `OMP_NUM_THREADS` is set.

    Threads that share a step wait for the slowest of them: one on a core with other work holds up all.
    """
    if THREADS_VARIABLE in os.environ:
        return
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), free_cores()))


def free_cores() -> int:
    """Of the cores that this process may use, those that are idle, or busy with niced work only; at least 1."""
    cores = psutil.cpu_times_percent(interval=_LOOK_S, percpu=True)
    mine = [core for number, core in enumerate(cores) if number in os.sched_getaffinity(0)]
    return max(1, sum(core.idle + core.iowait + core.nice >= _FREE_PERCENT for core in mine))
