"""The trainer's side of verl's vLLM rollout, for two policies on the same nodes.

verl's adapter finds its server by an actor name and sends it weights through a ZMQ socket in /tmp; both names
hold only job, replica and rank, which the two policies of a run share. `VllmAdapter` and
`vllm_replica.py` put the role into both. Without a role, all names are verl's own.
"""

from typing import Any

import ray
from verl.workers.rollout.vllm_rollout import ServerAdapter

from verl_longshort.verl_plugin.rollout.names import server_prefix, socket_of_role


class VllmAdapter(ServerAdapter):
    """verl's handle on the vLLM server that belongs to this worker's rank."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh, replica_rank)
        made: str = self.zmq_handle  # type: ignore[has-type]
        self.zmq_handle = socket_of_role(made, ray.get_runtime_context().get_job_id(), self.config)

    def _get_server_name_prefix(self) -> str:
        return server_prefix(self.config)
