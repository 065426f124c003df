"""The functions of `torch.cuda` that verl calls on a platform's `device_module`, for a CPU.

A module because verl's `PlatformBase.device_module` is one. What is not written here is looked up in
`torch.cpu`. Memory is the process's resident set in bytes: the CPU has no allocator of its own to ask.
"""

import ctypes
import resource
import sys
from types import SimpleNamespace
from typing import Any

import psutil
import torch

_LIBRARY = ctypes.CDLL(None)
# ru_maxrss is in KiB on Linux and in bytes on macOS.
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


def __getattr__(name: str) -> Any:
    return getattr(torch.cpu, name)


def memory_allocated(device: object = None) -> int:
    """Resident set of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


def max_memory_allocated(device: object = None) -> int:
    """Largest resident set this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT


memory_reserved = memory_allocated
max_memory_reserved = max_memory_allocated


def mem_get_info(device: object = None) -> tuple[int, int]:
    """Free and total memory of the machine, in bytes."""
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def current_device() -> torch.device:
    """The device itself; verl hands it to `Tensor.to`, where an index would mean an accelerator."""
    return torch.device("cpu")


def get_device_name(device: object = None) -> str:
    """The name verl's table of FLOPs knows a CPU by."""
    return "CPU"


def get_device_properties(device: object = None) -> SimpleNamespace:
    """`name` and `total_memory` (bytes), the two properties verl reads."""
    return SimpleNamespace(name=get_device_name(), total_memory=psutil.virtual_memory().total)


def get_rng_state(device: object = None) -> torch.Tensor:
    """State of torch's CPU generator."""
    return torch.get_rng_state()


def set_rng_state(state: torch.Tensor, device: object = None) -> None:
    """Restore torch's CPU generator."""
    torch.set_rng_state(state)


def manual_seed(seed: int) -> None:
    """Seed torch's CPU generator."""
    torch.manual_seed(seed)


manual_seed_all = manual_seed


def empty_cache() -> None:
    """Give freed memory that malloc keeps back to the system, where the C library can (glibc).

    verl calls this around sending a policy's weights to its engine, hence after every update: the partner's worker may
    need the memory next. Not with pools of their own, where weights go another way.
    """
    trim = getattr(_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


def _nothing(*args: object, **kwargs: object) -> None:
    """Streams and memory limits: a CPU has none."""


ipc_collect = _nothing
reset_peak_memory_stats = _nothing
reset_accumulated_memory_stats = _nothing
set_device = _nothing
set_per_process_memory_fraction = _nothing
synchronize = _nothing
