"""Which Ray cluster a run uses: one of its own on this machine, or an existing one.

An existing cluster is joined when the user names it (`ray_kwargs.ray_init.address`, else `RAY_ADDRESS`). Its
nodes' devices come from `ray start`, and its processes have the environment of the nodes, not of the command, so the
variables that a run needs are sent along. Nothing here needs a connection.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from longshort_reward.errors import UserError
from omegaconf import DictConfig, open_dict

VARIABLE = "RAY_ADDRESS"
ADDRESS_KEY = "ray_kwargs.ray_init.address"
CPUS_PER_DEVICE = 3
"""verl reserves so many of Ray's CPUs with each device (`ResourcePoolManager.max_colocate_count`)."""

# what the settings say about a cluster of the run's own
_OWN_CLUSTER = ("num_cpus", "num_gpus", "include_dashboard")
_CARRIED = ("LONGSHORT_", "VERL_", "HF_", "TRANSFORMERS_", "VLLM_", "NCCL_", "GLOO_", "TORCH_", "WANDB_")
_CARRIED_NAMES = ("PYTHONPATH", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "TENSORBOARD_DIR")
# verl prints the environment it hands to Ray
_SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")


def requested_address(config: DictConfig) -> str | None:
    """The existing cluster that a run is to join (`auto`: the one on this machine); None: its own."""
    given = config.ray_kwargs.ray_init.get("address")
    if given in (None, "auto"):
        # Ray's own order: a named address counts before the variable
        given = os.environ.get(VARIABLE) or given
    return None if given in (None, "local") else str(given)


def check_address(config: DictConfig) -> None:
    """Raise UserError when a run on several nodes does not say which cluster they form."""
    if config.trainer.nnodes > 1 and requested_address(config) is None:
        remedy = (
            f"several nodes are a Ray cluster that runs already: `ray start` each, then set {VARIABLE}="
            f"<head>:6379 or {ADDRESS_KEY}"
        )
        raise UserError("trainer.nnodes", config.trainer.nnodes, remedy)


def point_at_cluster(config: DictConfig, *, pools: int) -> None:
    """Set in `config.ray_kwargs.ray_init` where the run's processes live.

    Args:
        config: the run's configuration, changed in place.
        pools: resource pools of trainer.nnodes x trainer.n_gpus_per_node devices each.
    """
    address = requested_address(config)
    with open_dict(config):
        ray_init = config.ray_kwargs.ray_init
        # "local": a run never joins a cluster that happens to be running on this machine
        ray_init.address = address or "local"
        if address is None:
            if config.trainer.device == "cpu":
                # logical slots, one per worker; Ray counts them as GPUs
                ray_init.num_gpus = pools * config.trainer.n_gpus_per_node
            return
        for key in _OWN_CLUSTER:
            # Ray refuses them for an existing cluster
            ray_init.pop(key, None)


def no_connection(config: DictConfig, error: Exception) -> UserError:
    """The error for a Ray cluster that could not be started or joined."""
    remedy = (
        f"{' '.join(str(error).split())}; does the cluster run (`ray status`), and does it want a token "
        "(RAY_AUTH_MODE=token with the same ~/.ray/auth_token on all nodes)?"
    )
    return UserError(f"{VARIABLE} or {ADDRESS_KEY}", requested_address(config) or "local", remedy)


def carry_environment(config: DictConfig, environment: Mapping[str, str]) -> None:
    """Pass `carried(environment)` to a run on an existing cluster; what the user set there wins."""
    if requested_address(config) is None:
        return
    with open_dict(config):
        ray_init = config.ray_kwargs.ray_init
        runtime = ray_init.get("runtime_env") or {}
        variables = {**carried(environment), **(runtime.get("env_vars") or {})}
        ray_init.runtime_env = {**runtime, "env_vars": variables}


def carried(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that concern a run's processes: settings of the libraries, no secrets."""
    return {
        name: value
        for name, value in environment.items()
        if (name.startswith(_CARRIED) or name in _CARRIED_NAMES) and not any(s in name for s in _SECRET)
    }


def device_groups(config: DictConfig, *, pools: int) -> list[int]:
    """Sizes of the groups of devices that must each lie on one node."""
    return [config.trainer.n_gpus_per_node] * (config.trainer.nnodes * pools)


def check_capacity(nodes: Sequence[Mapping[str, Any]], groups: Sequence[int], address: str) -> None:
    """Check the run's resource request against the nodes of a cluster (`ray.nodes()`).

    Raises:
        UserError: no node has room for some group of devices.
    """
    alive = [node for node in nodes if node["Alive"]]
    room = sorted((_devices(node) for node in alive), reverse=True)
    for group in sorted(groups, reverse=True):
        if not room or room[0] < group:
            remedy = (
                f"the run asks for {len(groups)} x {max(groups)} devices, each group on one node and "
                f"{CPUS_PER_DEVICE} CPUs with each device; the Ray cluster at {address} has "
                f"{_listed(alive)}; add nodes (`ray start --address=…`) or ask for less"
            )
            raise UserError("trainer.nnodes x trainer.n_gpus_per_node", f"{len(groups)} x {group}", remedy)
        room[0] -= group
        room.sort(reverse=True)


def node_name(node: Mapping[str, Any]) -> str:
    """A readable name of a node of `ray.nodes()`: its address and the start of its id, as in Ray's logs."""
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"


def _devices(node: Mapping[str, Any]) -> int:
    has = node["Resources"]
    return int(min(has.get("GPU", has.get("NPU", 0)), has.get("CPU", 0) // CPUS_PER_DEVICE))


def _listed(nodes: Sequence[Mapping[str, Any]]) -> str:
    if not nodes:
        return "no living node"
    has = [
        f"{n['Resources'].get('GPU', 0):g} GPUs and {n['Resources'].get('CPU', 0):g} CPUs on {node_name(n)}"
        for n in nodes
    ]
    return ", ".join(has)
