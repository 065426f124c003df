"""The CPU as a platform of verl, under the name "cpu", and its process group over gloo.

verl detects it by itself where no accelerator answers; `VERL_PLATFORM=cpu` asks for it on a machine that has
one.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import ModuleType

import torch
import torch.distributed as dist
from longshort_reward.errors import UserError
from verl.plugin.platform import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

from verl_longshort.verl_plugin.platform import device_module

PLATFORM_NAME = "cpu"
GROUP_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What tells a process its place in the group; set by torchrun and by verl's Ray worker groups."""

VLLM_THREADS = "VLLM_CPU_OMP_THREADS_BIND"
"""Names the cores of vLLM's threads, or `nobind`; OMP_NUM_THREADS is their number then."""

GROUP_TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others in one collective before it fails (torch's own default for gloo)."""

logger = logging.getLogger(__name__)


@PlatformRegistry.register(platform=PLATFORM_NAME)
class PlatformCPU(PlatformBase):
    """verl's view of a machine that computes on its CPU."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> ModuleType:
        return device_module

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """True where no other registered platform answers.

        verl takes the first platform that answers, in the order of registration, and another plug-in may
        register an accelerator after this one; hence all are asked here.
        """
        for name in PlatformRegistry.registered_names():
            platform = PlatformRegistry.get(name)
            if name == PLATFORM_NAME or platform is None:
                continue
            try:
                if platform().is_platform_available(use_smi_check=use_smi_check):
                    return False
            except Exception as error:
                # verl's own detection takes a probe that raises for a platform that is not there.
                logger.warning("verl platform %r could not be probed and counts as absent: %s", name, error)
        return True

    def current_device(self) -> torch.device:
        return device_module.current_device()

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        """There is one CPU device to select, and it is selected."""

    def synchronize(self, device_index: int | None = None) -> None:
        """CPU work is done when the call returns."""

    def manual_seed(self, seed: int) -> None:
        device_module.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        device_module.manual_seed_all(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """A CPU has no caching allocator to set."""

    def empty_cache(self) -> None:
        device_module.empty_cache()

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        """The name is gloo; in one of verl's Ray workers the process group is open when this returns.

        verl asks for the name to build the backend string that torch rejects on a CPU (see `open_process_group`),
        and right after that it asks whether a group is open already. No other plug-in point lies between a
        stock worker's start and its group: verl's trainers choose the worker classes themselves, so
        subclasses of them would serve only a trainer of ours.
        """
        if os.environ.get("WG_BACKEND") == "ray" and not dist.is_initialized():
            open_process_group()
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """A name nobody sets: a CPU worker has no devices to hide."""
        return "VERL_CPU_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        """NVIDIA's profiler has nothing to see here."""

    def profiler_stop(self) -> None:
        """NVIDIA's profiler has nothing to see here."""

    def ray_resource_name(self) -> str:
        """GPU, since verl counts no other resource but NPUs.

        The slots are logical and come from `ray.init(num_gpus=<world size>)`; no device stands behind them.
        """
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def rollout_env_vars(self) -> dict[str, str]:
        """What servers get: the threads of vLLM are bound to no cores, as all processes of a run share the machine.

        By itself, each vLLM server would bind its threads to the same cores as the next.
        """
        return {VLLM_THREADS: os.environ.get(VLLM_THREADS, "nobind")}

    def cudart(self) -> None:
        return None


def open_process_group(timeout: timedelta = GROUP_TIMEOUT) -> None:
    """Open the default process group on "cpu:gloo", at the place the environment gives this process.

    verl 0.9.1 asks torch for the backend `"cpu:gloo,<device>:<backend>"`. With the device "cpu" that names the CPU
    twice, and torch rejects it. verl's Ray workers keep a group that is already open, so `PlatformCPU` opens it for
    them; the SFT launcher calls this function itself.

    A process that was started alone, with none of `GROUP_VARIABLES` set, becomes a group of one, and the
    variables are set for it: verl's `Worker` reads them too. Raises UserError when only some of them are set.
    """
    missing = [name for name in GROUP_VARIABLES if name not in os.environ]
    if len(missing) == len(GROUP_VARIABLES):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
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
