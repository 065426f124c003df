"""Names of a policy's servers and sockets, which are visible to all processes of a node.

Both policies of a run number their replicas from 0, so the role is part of each name. It is
`rollout.custom.role`, which is `tied` for a policy that plays both roles; without one, names are verl's own.
"""

import os

from verl.workers.config import RolloutConfig


def role_of(config: RolloutConfig) -> str | None:
    """The role of a rollout's policy; None outside a pair."""
    role = (config.custom or {}).get("role")
    return str(role) if role else None


def server_prefix(config: RolloutConfig) -> str:
    """Prefix of the names of a policy's server actors: `<rollout name>_[<role>_]`."""
    role = role_of(config)
    return f"{config.name}_{role}_" if role else f"{config.name}_"


def server_name(config: RolloutConfig, replica_rank: int, kind: str = "") -> str:
    """Name of a replica's Ray actor, `<rollout name>_[<role>_]server_<rank>_0`."""
    return f"{server_prefix(config)}server_{kind}{replica_rank}_0"


def job_of_role(job_id: str, config: RolloutConfig) -> str:
    """The name of the Ray job in the paths of a policy's weight sockets: `<job>[-<role>]`."""
    role = role_of(config)
    return f"{job_id}-{role}" if role else job_id


def socket_of_role(socket: str, job_id: str, config: RolloutConfig) -> str:
    """verl's path of a weight socket with the role behind the job, as the policy's server makes it.

    Raises RuntimeError when the path does not name the job: sender and receiver would wait for each other on
    different sockets.
    """
    folder, name = os.path.split(socket)
    if name.count(job_id) != 1:
        raise RuntimeError(f"the weight socket {socket} does not name the job {job_id}: another verl?")
    return os.path.join(folder, name.replace(job_id, job_of_role(job_id, config)))
