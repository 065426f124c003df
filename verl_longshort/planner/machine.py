"""What this machine has: GPUs, memory, disk, packages. Asks the driver's tool and the file system."""

import importlib.util
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from verl_longshort.engines.registry import PACKAGES
from verl_longshort.recipe.assumptions import GB, GIB

DEFAULT_GPUS = 8
DEFAULT_GPU_GB = 80.0
_QUERY = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
_QUERY_TIMEOUT_S = 30


@dataclass(frozen=True, kw_only=True)
class Machine:
    """This machine."""

    gpu_memory_gb: tuple[float, ...]
    """Of each GPU, GiB."""
    host_memory_gb: float
    """GiB."""
    disk_free_gb: float
    """GB, where the recipe writes."""
    missing_packages: frozenset[str]
    """Of those that only some stages need."""

    @property
    def planned_gpus(self) -> int:
        """GPUs of a node when nobody says how many."""
        return len(self.gpu_memory_gb) or DEFAULT_GPUS

    @property
    def planned_gpu_gb(self) -> float:
        """Memory of a GPU when nobody says how much."""
        return min(self.gpu_memory_gb, default=DEFAULT_GPU_GB)


def detect_machine(output: Path) -> Machine:
    """This machine, as a recipe that writes to `output` would find it."""
    there = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    missing = {name for name in (*PACKAGES, "flash_attn") if importlib.util.find_spec(name) is None}
    return Machine(
        gpu_memory_gb=_gpus(),
        host_memory_gb=psutil.virtual_memory().total / GIB,
        disk_free_gb=shutil.disk_usage(there).free / GB,
        missing_packages=frozenset(missing),
    )


def _gpus() -> tuple[float, ...]:
    if shutil.which(_QUERY[0]) is None:
        return ()
    asked = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=False)
    if asked.returncode:
        # the tool is there and the driver is not
        return ()
    return tuple(float(line) / 1024 for line in asked.stdout.splitlines() if line.strip())
