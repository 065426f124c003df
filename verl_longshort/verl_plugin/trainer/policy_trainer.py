"""One policy of the pair: a complete verl trainer that is given its rows instead of sampling them.

`PolicyTrainer` owns what one verl policy owns (actor, reference, critic, rollout servers, weight sync,
optimizer, checkpoint); verl's public `step()` does all the learning. It plays one role, or both (tied).
`FrozenPolicy` is a policy that learns in no round: only a server.
"""

import os
from collections.abc import Sequence
from typing import Any

import ray
from longshort_reward.protocol import Role
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.single_controller.ray import ResourcePoolManager
from verl.workers.rollout.llm_server import LLMServerClient, LLMServerManager

from verl_longshort.verl_plugin.checks.resume import optimizer_horizon
from verl_longshort.verl_plugin.checks.verl_checks import sequence_parallel
from verl_longshort.verl_plugin.rollout.clients import client_of
from verl_longshort.verl_plugin.rollout.registry import ROLLOUTS
from verl_longshort.verl_plugin.run.activity import node_of_worker
from verl_longshort.verl_plugin.trainer.gdpo import Credit, TermTrainer
from verl_longshort.verl_plugin.trainer.learning import compares_group, set_horizon, spread
from verl_longshort.verl_plugin.trainer.replay import PresetBatch
from verl_longshort.verl_plugin.trainer.rows import kinds_of, parts_by_role


class ExistingPools(ResourcePoolManager):
    """A manager over pools that were made elsewhere and are shared."""

    def create_resource_pool(self) -> None:
        """Nothing to make."""


class _NoData:
    """The data position of a policy: the pair has it."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class PolicyTrainer(TermTrainer):
    """A policy that learns in some rounds.

    Args:
        name: its name in the run.
        roles: those that it plays; it learns from the rows of all of them.
        config: its own resolved verl configuration.
        updates: steps of the run in which it learns, the horizon of its learning rate.
        total_steps: steps of the whole run.
        pools: resource pools shared with the partner, or None for a pool of its own.
    """

    def __init__(
        self,
        name: str,
        roles: Sequence[Role],
        config: DictConfig,
        *,
        updates: int,
        total_steps: int,
        pools: dict[str, Any] | None,
    ) -> None:
        self.name = name
        self.roles = tuple(roles)
        self._updates = updates
        self._total_steps = total_steps
        self._pools = pools
        self._asleep = False
        self._up_to_date = False
        """The engine has this policy's weights, or will have them when it wakes up."""
        super().__init__(config)

    def _build_replay_buffer(self) -> PresetBatch:
        return PresetBatch()

    def _init_dataloader(self) -> None:
        self.train_dataloader = _NoData()
        self.total_training_steps = self._total_steps
        for optim in (self.config.actor_rollout_ref.actor.optim, self.config.critic.optim):
            set_horizon(optim, optimizer_horizon(optim, self._updates))

    def _init_dump_executor(self) -> None:
        pass

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        made: ResourcePoolManager = self.resource_pool_manager  # type: ignore[has-type]
        if self._pools is not None:
            self.resource_pool_manager = ExistingPools(
                resource_pool_spec=made.resource_pool_spec,
                mapping=made.mapping,
                resource_pool_dict=self._pools,
            )
            return
        # placement groups are named after their pool: two pools of one name would be one
        own = f"{self.name}_pool"
        self.resource_pool_manager = ResourcePoolManager(
            resource_pool_spec={own: made.resource_pool_spec["global_pool"]},
            mapping=dict.fromkeys(made.mapping, own),
        )

    def on_init_end(self) -> None:
        """Give the servers the weights that the run begins with."""
        self.sync(self.global_steps)

    def prepare_step(self) -> dict[str, Any]:
        """Nothing to submit: the pair does."""
        return {}

    def on_sample_end(self) -> None:
        """The pair has put the servers to sleep already."""

    def get_llm_client(self) -> LLMServerClient:
        """The client of this policy's servers."""
        return client_of(self.llm_server_manager)

    def nodes(self) -> list[str]:
        """The Ray node of each worker rank, by id."""
        return list(ray.get([worker.__ray_call__.remote(node_of_worker) for worker in self.actor_rollout_wg.workers]))

    def _balance_batch(
        self, batch: KVBatchMeta, metrics: dict[str, Any], logging_prefix: str = "global_seqlen", **more: Any
    ) -> KVBatchMeta:
        batch = super()._balance_batch(batch, metrics, logging_prefix, **more)
        kinds = kinds_of(batch)
        actor, trainer = self.config.actor_rollout_ref.actor, self.config.trainer
        mini = actor.ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n
        if len(set(kinds)) > 1 and len(batch) % mini == 0:
            ranks = trainer.nnodes * trainer.n_gpus_per_node // sequence_parallel(actor)
            batch.reorder(spread(kinds, ranks=ranks, updates=len(batch) // mini))
        return batch

    def compared(self, batch: KVBatchMeta) -> list[KVBatchMeta]:
        """Rows of different roles have different rewards: each role's are compared as if it had a policy of its own."""
        return parts_by_role(batch) if len(self.roles) > 1 else [batch]

    def workers(self) -> dict[str, str]:
        """Ray's id of each worker's actor -> what it is."""
        workers = enumerate(self.actor_rollout_wg.workers)
        return {worker._actor_id.hex(): f"worker rank {rank} of the {self.name} policy" for rank, worker in workers}

    def credit(self) -> Credit:
        """See `TermTrainer`."""
        return self._credit

    @property
    def compares(self) -> bool:
        """Whether its advantages compare the trajectories of a problem."""
        return compares_group(self.config)

    def learn(
        self, rows: Any, step: int, *, update: int, credit: Credit
    ) -> tuple[Any, dict[str, Any], dict[str, float]]:
        """One verl step on `rows`; returns the rows with padding, metrics and timings.

        Args:
            rows: what to learn from.
            step: the run's step.
            update: how many steps this policy has learned in, this one included.
            credit: the rewards of the rows.
        """
        self._credit = credit
        self.replay_buffer.rows = rows
        metrics: dict[str, Any] = {}
        timing: dict[str, float] = {}
        self._up_to_date = False
        # verl compares trainer.critic_warmup with it: a critic warms up in its own policy's first updates
        self.global_steps = update
        try:
            batch = self.step(metrics, timing)
        finally:
            self.global_steps = step
        return batch, metrics, timing

    def sync(self, step: int) -> bool:
        """Wake the servers; give them this policy's weights as version `step` unless they have them: whether it did."""
        sent = not self._up_to_date
        if sent:
            self.checkpoint_manager.update_weights(step)
        else:
            if self._asleep:
                self.checkpoint_manager.wake_up_replicas()
            # as after an update: what is sampled must not depend on what was sampled before, nor on a resume
            ray.get([server.clear_kv_cache.remote() for server in servers_of(self.llm_server_manager)])
            set_version(self.llm_server_manager, step)
        self._up_to_date, self._asleep = True, False
        return sent

    def sleep(self) -> None:
        """Free the servers' memory while weights change."""
        self.checkpoint_manager.sleep_replicas()
        rollout = self.config.actor_rollout_ref.rollout
        if rollout.free_cache_engine:
            self._asleep = True
            self._up_to_date &= ROLLOUTS[rollout.name].sleeps_with_weights if rollout.name in ROLLOUTS else False

    def save(self, step: int) -> None:
        """Write this policy's checkpoint."""
        self.global_steps = step
        self._save_checkpoint()

    def exported(self, step: int) -> str:
        """This policy as a Hugging Face folder: of the checkpoint of `step`, or its start (0)."""
        if step == 0:
            return str(self.config.actor_rollout_ref.model.path)
        root = self.config.trainer.default_local_dir
        return os.path.join(root, f"global_step_{step}", "actor", "huggingface")


def servers_of(manager: LLMServerManager) -> list[Any]:
    """The Ray actors of all its servers; of a replica on several nodes, one for each node."""
    return [server for replica in manager.get_replicas() for server in replica.servers]


def set_version(manager: LLMServerManager, step: int) -> None:
    """Tell servers whose weights did not change the step, so that staleness metrics are right."""
    ray.get([server.set_global_steps.remote(step) for server in servers_of(manager)])


class FrozenPolicy:
    """A policy that serves only: no worker group, no optimizer, nothing to save."""

    def __init__(self, name: str, roles: Sequence[Role], config: DictConfig) -> None:
        self.name = name
        self.roles = tuple(roles)
        self.config = config
        self.global_steps = 0

    def init(self) -> None:
        """Start its servers from the model path, each with a version number of its own."""
        self.llm_server_manager = LLMServerManager.create(config=self.config)
        self.sync(0)

    def get_llm_client(self) -> LLMServerClient:
        """The client of this policy's servers."""
        return client_of(self.llm_server_manager)

    def nodes(self) -> list[str]:
        """It has no worker ranks."""
        return []

    def workers(self) -> dict[str, str]:
        """See `nodes`."""
        return {}

    def sync(self, step: int) -> bool:
        """Tell the servers the step; False, since there are no weights to give."""
        set_version(self.llm_server_manager, step)
        return False

    def sleep(self) -> None:
        """A standalone server shares no memory with training: it stays awake."""

    def save(self, step: int) -> None:
        """Its weights are those of its model path: nothing to write."""

    def exported(self, step: int) -> str:
        """Its own model path."""
        return str(self.config.actor_rollout_ref.model.path)


Policy = PolicyTrainer | FrozenPolicy
