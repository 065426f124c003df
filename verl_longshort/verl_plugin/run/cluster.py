"""Which Ray cluster a run uses: one of its own on this machine, or an existing one.

An existing cluster is joined when the user names it (`ray_kwargs.ray_init.address`, else `RAY_ADDRESS`). Its
nodes' devices come from `ray start`, and its processes have the environment of the nodes, not of the command, so the
variables that a run needs are sent along. Before the run starts, a Ray task on each node looks whether the node has
the same packages and sees the folders that all nodes must share; only `check_nodes` and `wait_until_free` need a
connection.
"""

import importlib.metadata
import os
import socket
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from omegaconf import DictConfig, OmegaConf, open_dict

VARIABLE = "RAY_ADDRESS"
ADDRESS_KEY = "ray_kwargs.ray_init.address"
CPUS_PER_DEVICE = 3
"""verl reserves so many of Ray's CPUs with each device (`ResourcePoolManager.max_colocate_count`)."""

PACKAGES = ("verl-longshort", "verl")
ANSWER_S = 180.0
"""How long a node may take to start a Python process and look."""

SEEN_S = 15.0
"""How long a file may take to appear on another node: network file systems cache folders."""

REACH_S = 10.0
"""How long the cluster's head may take to answer."""

FREE_S = 60.0
"""How long to wait for devices: those of a run that has just died are free a moment later."""

_SOCKET_BYTES = 107
"""Of a socket's path on Linux."""

_SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""How Ray continues it, with the largest process id."""

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


def check_sockets(config: DictConfig, environment: Mapping[str, str]) -> None:
    """Check the folder in which a Ray cluster of the run's own puts its sockets.

    The path of a socket may have 107 bytes, and Ray makes it of this folder, the time and a process id. Raises
    UserError naming the setting or the variable, and a shorter place.
    """
    if requested_address(config) is not None:
        return
    given = config.ray_kwargs.ray_init.get("_temp_dir")
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if environment.get(name)), "TMPDIR")
    key, below = ("ray_kwargs.ray_init._temp_dir", "") if given else (name, "/ray")
    folder = Path(given or environment.get(name) or "/tmp").absolute()
    most = _SOCKET_BYTES - len(f"{below}{_SOCKET}")
    if len(os.fsencode(folder)) > most:
        remedy = f"Ray's sockets need a folder of at most {most} bytes: set {key}=/tmp, or another short folder"
        raise UserError(key, folder, remedy)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(key, folder, f"Ray cannot write there: set {key}=/tmp, or another folder")


def check_reachable(config: DictConfig) -> None:
    """Raise UserError when nothing answers where the cluster that the run is to join should be.

    Ray itself goes on trying for minutes.
    """
    if (address := requested_address(config)) is None:
        return
    from ray._common.network_utils import parse_address
    from ray._private.services import canonicalize_bootstrap_address

    try:
        place = address.split("://", 1)[1].split("/", 1)[0] if "://" in address else None
        place = place or canonicalize_bootstrap_address(address)
        if place is None:
            # Ray looks for the processes of a cluster, which takes no time
            return
        found = parse_address(place)
        if found is None:
            raise ConnectionError("is no host:port")
        socket.create_connection((found[0], int(found[1])), timeout=REACH_S).close()
    except (OSError, ValueError) as error:
        raise no_connection(config, error) from error


def point_at_cluster(config: DictConfig, *, pools: int) -> None:
    """Set in `config.ray_kwargs.ray_init` (in place) where the run's processes live.

    Each of the `pools` resource pools has trainer.nnodes x trainer.n_gpus_per_node devices, and a policy that only
    serves has its own.
    """
    address = requested_address(config)
    with open_dict(config):
        ray_init = config.ray_kwargs.ray_init
        # "local": a run never joins a cluster that happens to be running on this machine
        ray_init.address = address or "local"
        if address is None:
            if config.trainer.device == "cpu":
                # logical slots, one per worker; Ray counts them as GPUs
                policies = OmegaConf.select(config, "longshort.policy_configs", default={}).values()
                rollouts = [policy.actor_rollout_ref.rollout for policy in policies]
                served = sum(rollout.nnodes * rollout.n_gpus_per_node for rollout in rollouts)
                ray_init.num_gpus = pools * config.trainer.n_gpus_per_node + served
            return
        for key in _OWN_CLUSTER:
            # Ray rejects them for an existing cluster
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


def check_capacity(nodes: Sequence[Mapping[str, Any]], groups: Sequence[int], address: str) -> None:
    """Check the run's resource request against the nodes of a cluster (`ray.nodes()`).

    `groups` are the sizes of the groups of devices that must each lie on one node. Raises UserError when no node has
    room for some group.
    """
    room, listed = [], []
    for node in nodes:
        if node["Alive"]:
            has = node["Resources"]
            gpus, cpus = has.get("GPU", 0), has.get("CPU", 0)
            room.append(int(min(has.get("GPU", has.get("NPU", 0)), cpus // CPUS_PER_DEVICE)))
            listed.append(f"{gpus:g} GPUs and {cpus:g} CPUs on {node_name(node)}")
    for group in sorted(groups, reverse=True):
        room.sort(reverse=True)
        if not room or room[0] < group:
            remedy = (
                f"the run asks for {len(groups)} x {max(groups)} devices, each group on one node and "
                f"{CPUS_PER_DEVICE} CPUs with each device; the Ray cluster at {address} has "
                f"{', '.join(listed) or 'no living node'}; add nodes (`ray start --address=…`) or ask for less"
            )
            raise UserError("trainer.nnodes x trainer.n_gpus_per_node", f"{len(groups)} x {group}", remedy)
        room[0] -= group


def node_name(node: Mapping[str, Any]) -> str:
    """A readable name of a node of `ray.nodes()`: its address and the start of its id, as in Ray's logs."""
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"


def check_nodes(nodes: Iterable[Mapping[str, Any]], folder: Path, models: Mapping[str, str]) -> None:
    """Ask every living node that can run something.

    Args:
        nodes: the cluster, `ray.nodes()`.
        folder: the run's folder; made here, and every node must see what another one writes there.
        models: configuration key -> model; local folders must be there on every node.

    Raises:
        UserError: naming the first node that lacks something, and what.
    """
    local = {key: path for key, path in models.items() if Path(path).is_dir()}
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / f".seen-by-all-{uuid.uuid4().hex}"
    token.touch()
    try:
        answers = _ask(nodes, [str(token), *local.values()])
    finally:
        token.unlink()
    for node, answer in answers:
        for package, found in answer["versions"].items():
            here = importlib.metadata.version(package)
            if found != here:
                remedy = f"this machine has {here}: install the same on every node, then restart Ray there"
                raise UserError(f"{package} on node {node}", found or "not installed", remedy)
        if str(token) in answer["unseen"]:
            remedy = f"node {node} does not see what is written there: use a folder all nodes share"
            raise UserError("trainer.default_local_dir", folder, remedy)
        for key, path in local.items():
            if path in answer["unseen"]:
                raise UserError(key, path, f"node {node} has no such folder: use one all nodes share")


def _ask(nodes: Iterable[Mapping[str, Any]], paths: list[str]) -> list[tuple[str, dict[str, Any]]]:
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(_question())
    pending = {}
    for node in nodes:
        if node["Alive"] and node["Resources"].get("CPU", 0) > 0:
            strategy = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": strategy}
            pending[node_name(node)] = task.options(**options).remote(paths, list(PACKAGES), SEEN_S)
    answers = []
    for name, answer in pending.items():
        try:
            answers.append((name, ray.get(answer, timeout=ANSWER_S)))
        except RayError as error:
            remedy = f"cannot run a task: {str(error).splitlines()[0]}; restart Ray there"
            raise UserError("node", name, remedy) from error
    return answers


def _question() -> Any:
    # a function made here travels as a whole, so that it runs where this package is not installed
    def look(paths: list[str], packages: list[str], wait_s: float) -> dict[str, Any]:
        import importlib.metadata
        import os
        import time

        versions: dict[str, str | None] = {}
        for package in packages:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                versions[package] = None
        ends = time.monotonic() + wait_s
        unseen = [path for path in paths if not os.path.exists(path)]
        while unseen and time.monotonic() < ends:
            time.sleep(0.5)
            unseen = [path for path in unseen if not os.path.exists(path)]
        return {"versions": versions, "unseen": unseen}

    return look


def wait_until_free(devices: int) -> None:
    """Wait until the cluster has `devices` free and no other run of verl.

    Raises:
        UserError: not within `FREE_S` seconds.
    """
    ends = time.monotonic() + FREE_S
    while (lack := _lack(devices)) is not None:
        if time.monotonic() > ends:
            raise lack
        time.sleep(1)


def _lack(devices: int) -> UserError | None:
    import ray

    named = ray.util.list_named_actors(all_namespaces=True)
    if any(actor["name"] == "TransferQueueController" for actor in named):
        # the queue's name is fixed: a second run would read the first one's rows
        remedy = "is in use by another run of verl, and a cluster holds one at a time: wait for it or end it"
        return UserError("the Ray cluster", ray.get_runtime_context().gcs_address, remedy)
    free = ray.available_resources()
    if (have := free.get("GPU", free.get("NPU", 0))) < devices:
        remedy = f"only {have:g} of the cluster's devices are free: wait for the job that holds the others"
        return UserError("trainer.nnodes x trainer.n_gpus_per_node", devices, remedy)
    return None
