"""verl's vLLM rollout for two policies on the same nodes: replica and server with the role in their names.

What of verl 0.9.1 (files under `workers/rollout/`) is visible outside its process, and what keeps two policies
apart there:

| name | where | kept apart by |
|---|---|---|
| actors `vllm_server_<replica>_<node>` | vllm_rollout/{vllm_async_server:1371,vllm_rollout:165} | role |
| `/tmp/rl-colocate-zmq-<job>-replica-<r>-rank-<k>.sock` | vllm_rollout/{vllm_rollout:141,utils:431} | role |
| shared memory `verl_weights_<uuid>` | vllm_rollout/bucketed_weight_transfer:190 | random names |
| HTTP, NCCL and data-parallel ports | vllm_rollout/vllm_async_server:210, utils:69 | ports the system finds |
| VERL_REPLICA_RANK, VERL_RAY_JOB_ID, … | vllm_rollout/vllm_async_server:135-156, 1261 | one process each |
| `rollout_pool_<r>`, `rollout_standalone_<r>` | replica:198, 216 | one standalone policy at most |
| the load balancer's actor | router:322 | it has no name |
| prefill and decode servers | vllm_rollout/vllm_pd_replica:154, 185 | rejected: `registry.py` |
| Prometheus' configuration file | utils:141 | rejected |
| vLLM's sockets and shared memory | vllm/utils/network_utils:141, shm_broadcast:286 | random names |
| vLLM's compiled graphs, `~/.cache/vllm` | vllm/envs:34 | shared; keys are hashes of the settings |

Policies start one after the other, so no two servers of different policies compile or look for a port at the
same time. Importing this module imports vLLM; verl asks for it when it starts a vLLM rollout.
"""

import os
from typing import Any

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
from vllm.platforms import current_platform

from verl_longshort.verl_plugin.rollout.names import job_of_role, server_prefix

JOB_VARIABLE = "VERL_RAY_JOB_ID"
"""Where verl's vLLM workers read the job id of their weight socket's path."""
CPU_EXTENSION = "verl_longshort.verl_plugin.rollout.vllm_cpu.CpuWorkerExtension"
"""vLLM's workers import it by this path."""


class VllmServer(vLLMHttpServer):
    """verl's server; its workers listen for weights on their policy's own socket."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        os.environ[JOB_VARIABLE] = job_of_role(os.environ[JOB_VARIABLE], self.config)

    def _get_worker_extension_cls(self) -> str:
        return CPU_EXTENSION if current_platform.is_cpu() else str(super()._get_worker_extension_cls())


class VllmReplica(vLLMReplica):
    """verl's replica; its servers are named after the policy."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(VllmServer)

    def _get_server_name_prefix(self) -> str:
        return server_prefix(self.config)
