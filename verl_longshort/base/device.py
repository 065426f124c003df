"""Whether commands use this machine's GPUs. Light: torch is imported only to look for one."""

import os

PLATFORM_VARIABLE = "VERL_PLATFORM"
"""verl's choice of a platform; `cpu` leaves the GPUs alone, in verl and in the engines of this package."""
CPU = "cpu"


def cpu_chosen() -> bool:
    """Whether the environment says to leave the GPUs alone."""
    return os.environ.get(PLATFORM_VARIABLE, "").strip().lower() == CPU


def finds_gpu() -> bool:
    """Whether models of this process go to a GPU."""
    if cpu_chosen():
        return False
    import torch

    return torch.cuda.is_available()
