"""Opens torch's process group over gloo for training on a CPU.

verl 0.9.1 asks torch for the backend `"cpu:gloo,<device>:<backend>"`. With the device "cpu" that names the
CPU twice, and torch refuses it. verl's Ray workers keep a group that is already open, so `PlatformCPU` opens
it for them; the SFT launcher calls `open_process_group` itself.
"""

import os
import socket
from datetime import timedelta

import torch.distributed as dist
from longshort_reward.errors import UserError

GROUP_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What tells a process its place in the group; set by torchrun and by verl's Ray worker groups."""

GROUP_TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others in one collective before it fails (torch's own default for gloo)."""


def is_ray_worker() -> bool:
    """Whether this process is a member of one of verl's Ray worker groups."""
    return os.environ.get("WG_BACKEND") == "ray"


def open_process_group(timeout: timedelta = GROUP_TIMEOUT) -> None:
    """Open the default process group on "cpu:gloo", at the place the environment gives this process.

    A process that was started alone, with none of `GROUP_VARIABLES` set, becomes a group of one, and the
    variables are set for it: verl's `Worker` reads them too. Raises UserError when only some of them are set.
    """
    missing = [name for name in GROUP_VARIABLES if name not in os.environ]
    if len(missing) == len(GROUP_VARIABLES):
        os.environ.update(_place_of_one())
    elif missing:
        remedy = f"set all of {', '.join(GROUP_VARIABLES)} (torchrun does), or none for one process alone"
        raise UserError(", ".join(missing), "not set", remedy)
    dist.init_process_group(
        "cpu:gloo",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timeout,
        init_method=os.environ.get("DIST_INIT_METHOD"),
    )


def _place_of_one() -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
