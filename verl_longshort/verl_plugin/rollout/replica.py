"""verl's replica of the transformers rollout: where a server runs and how it is started."""

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.plugin.platform import get_platform
from verl.utils.device import get_device_name, get_resource_name
from verl.workers.rollout.replica import RolloutMode, RolloutReplica

from verl_longshort.verl_plugin.rollout.adapter import check_one_process
from verl_longshort.verl_plugin.rollout.names import server_name
from verl_longshort.verl_plugin.rollout.server import TransformersServer


class TransformersReplica(RolloutReplica):
    """One server actor: on its worker's device (hybrid), or on its own (standalone).

    Raises UserError when the rollout is configured with more than one process per replica.
    """

    def __init__(self, replica_rank: int, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(replica_rank, config, *args, **kwargs)
        check_one_process(self.config)

    async def init_standalone(self) -> None:
        """Start a server that keeps the weights of its model path.

        verl's own would start workers to receive weights from a trainer elsewhere; this server has none.
        """
        self.rollout_mode = RolloutMode.STANDALONE
        await self.launch_servers()

    async def launch_servers(self) -> None:
        """Start the server and wait until its model is loaded."""
        if self.workers:
            options = await self._beside_worker()
        else:
            options = {} if get_device_name() == "cpu" else get_platform().ray_resource_options(1)
        kind = "reward_" if self.is_reward_model else "teacher_" if self.is_teacher_model else ""
        name = server_name(self.config, self.replica_rank, kind) + self.name_suffix
        server = (
            ray.remote(TransformersServer)
            .options(name=name, num_cpus=0, max_concurrency=self.max_concurrency, **options)
            .remote(self.config, self.model_config, self.rollout_mode, self.replica_rank)
        )
        await server.ready.remote()
        self.servers = [server]
        self._server_handle = server
        self._server_address = name

    async def _beside_worker(self) -> dict[str, Any]:
        """Ray options for the worker's node and device; the device is the worker's, so none is claimed."""
        node, devices = await self.workers[0].__ray_call__.remote(_where)
        platform = get_platform()
        visible = {platform.visible_devices_envvar(): ",".join(devices)}
        return {
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False),
            "runtime_env": {"env_vars": {**dict.fromkeys(platform.ray_noset_envvars(), "1"), **visible}},
        }


def _where(worker: Any) -> tuple[str, list[str]]:
    context = ray.get_runtime_context()
    return context.get_node_id(), [str(i) for i in context.get_accelerator_ids()[get_resource_name()]]
