"""Asks every node of a Ray cluster, before a run starts, whether it has what the run needs.

A Ray task on each node looks whether the node has the same packages and sees the folders that all nodes must
share. Needs a connection to the cluster.
"""

import importlib.metadata
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError

from verl_longshort.verl_plugin.trainer.cluster import node_name

PACKAGES = ("verl-longshort", "verl")
ANSWER_S = 180.0
"""How long a node may take to start a Python process and look."""

SEEN_S = 15.0
"""How long a file may take to appear on another node: network file systems cache folders."""

FREE_S = 60.0
"""How long to wait for devices: those of a run that has just died are free a moment later."""

_FOLDER_KEY = "trainer.default_local_dir"
_QUEUE = "TransferQueueController"


def check_nodes(nodes: Sequence[Mapping[str, Any]], folder: Path, models: Mapping[str, str]) -> None:
    """Ask every living node that can run something.

    Args:
        nodes: the cluster, `ray.nodes()`.
        folder: the run's folder; made here, and every node must see what another one writes there.
        models: configuration key -> model; local folders must be there on every node.

    Raises:
        UserError: naming the first node that lacks something, and what.
    """
    local = {key: path for key, path in models.items() if Path(path).is_dir()}
    with _token(folder) as token:
        for node, found in _ask(nodes, [str(token), *local.values()]):
            _check_packages(node, found["versions"])
            if str(token) in found["unseen"]:
                remedy = f"node {node} does not see what is written there: use a folder all nodes share"
                raise UserError(_FOLDER_KEY, folder, remedy)
            for key, path in local.items():
                if path in found["unseen"]:
                    raise UserError(key, path, f"node {node} has no such folder: use one all nodes share")


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
    if any(actor["name"] == _QUEUE for actor in named):
        # the queue's name is fixed: a second run would read the first one's rows
        remedy = "is in use by another run of verl, and a cluster holds one at a time: wait for it or end it"
        return UserError("the Ray cluster", ray.get_runtime_context().gcs_address, remedy)
    free = ray.available_resources()
    if (have := free.get("GPU", free.get("NPU", 0))) < devices:
        remedy = f"only {have:g} of the cluster's devices are free: wait for the job that holds the others"
        return UserError("trainer.nnodes x trainer.n_gpus_per_node", devices, remedy)
    return None


@contextmanager
def _token(folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / f".seen-by-all-{uuid.uuid4().hex}"
    token.touch()
    try:
        yield token
    finally:
        token.unlink()


def _ask(nodes: Sequence[Mapping[str, Any]], paths: list[str]) -> list[tuple[str, dict[str, Any]]]:
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


def _check_packages(node: str, versions: Mapping[str, str | None]) -> None:
    for package, found in versions.items():
        here = importlib.metadata.version(package)
        if found != here:
            remedy = f"this machine has {here}: install the same on every node, then restart Ray there"
            raise UserError(f"{package} on node {node}", found or "not installed", remedy)
