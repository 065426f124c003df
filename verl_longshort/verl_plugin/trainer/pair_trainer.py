"""`trainer.v1.trainer_mode=longshort`: one run, one environment, two policies, a schedule of rounds.

The pair owns the data, the replay buffer, the schedule and the checkpoints; each policy owns its weights
(`PolicyTrainer`). A step: submit prompts, wait for joint trajectories, split the rows by role, reward each
row, let the round's learners learn from their rows, give every engine its weights. With `longshort.tied` one policy
plays both roles and has the rows of both.
"""

import copy
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from longshort_reward import RoleReward
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.single_controller.ray import ResourcePoolManager
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer
from verl.utils.debug import marked_timer

from verl_longshort.base.console import say
from verl_longshort.base.errors import RunStoppedError
from verl_longshort.config.pair import Pools, plain_dict, policy_key, settings_of
from verl_longshort.verl_plugin.checks.policy_config import point_at_checkpoint
from verl_longshort.verl_plugin.checks.verl_checks import check_by_verl
from verl_longshort.verl_plugin.rollout.clients import PairClient, tokenizer_of
from verl_longshort.verl_plugin.run.activity import GENERATING, STARTING, VALIDATING, ActivityFile
from verl_longshort.verl_plugin.run.console import PAIR, StepLines, say_checkpoint
from verl_longshort.verl_plugin.run.stop import StopFile
from verl_longshort.verl_plugin.trainer.best_pair import BestPair, Validated
from verl_longshort.verl_plugin.trainer.dynamic_sampling import Draws
from verl_longshort.verl_plugin.trainer.gdpo import Credit
from verl_longshort.verl_plugin.trainer.group_reward import (
    Facts,
    ReplayKey,
    pair_metrics,
    reward_rows,
    role_metrics,
    shared_value,
    teaching_rows,
    weight_metrics,
)
from verl_longshort.verl_plugin.trainer.pair_checkpoints import PairCheckpoints
from verl_longshort.verl_plugin.trainer.policy_trainer import FrozenPolicy, Policy, PolicyTrainer
from verl_longshort.verl_plugin.trainer.replay import PairReplayBuffer
from verl_longshort.verl_plugin.trainer.rows import (
    joined,
    own_tokens,
    read_extra_fields,
    read_texts,
    split_by_role,
    without_padding,
    write_rewards,
)
from verl_longshort.verl_plugin.trainer.sampled import log_step

FEWEST_TOKENS = 2
"""A policy makes no update from fewer: a mean over none is not a number, and verl whitens over two or more."""


@register_trainer("longshort")
class PairTrainer(PPOTrainerSync):
    """Trains the long-thought and the short-thought policy on joint trajectories."""

    def __init__(self, config: DictConfig) -> None:
        config = copy.deepcopy(config)
        with open_dict(config):
            # PPOTrainer takes every mode that is not called "sync" for an asynchronous one
            config.trainer.v1.trainer_mode = "sync"
        self.settings = settings_of(config)
        self.schedule = self.settings.schedule
        self.activity = ActivityFile(config.trainer.default_local_dir, self.schedule.total_steps)
        self._lines = StepLines(self.schedule.total_steps)
        self._texts: dict[str, tuple[str, str]] = {}
        self._learned: dict[str, tuple[KVBatchMeta, dict[str, float]]] = {}
        self._sent: dict[str, bool] = {}
        self._stop = StopFile(config.trainer.default_local_dir)
        self._draws = Draws()
        super().__init__(config)

    # ---- construction ------------------------------------------------------------------------------

    def _build_replay_buffer(self) -> PairReplayBuffer:
        buffer = PairReplayBuffer(
            self,
            total_steps=self.schedule.total_steps,
            note_validated=self.note_validated,
            timeout_s=self.settings.rollout_timeout_s,
            max_failed_share=self.settings.max_failed_share,
            rows=len(ROLES),
            prefix="pair",
            shared_value=self._shared_value,
            draws=self._draws,
        )
        buffer.stop = self._stop
        return buffer

    def _shared_value(self, keys: Sequence[str], facts: Sequence[Facts], step: int) -> float | None:
        """See `group_reward.shared_value`."""
        metric, roles = self.config.algorithm.filter_groups.metric, self.schedule.learners(step)
        return shared_value(keys, facts, self.settings.weights, step, roles=roles, metric=metric)

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        self.total_training_steps = self.schedule.total_steps
        if self.steps_per_epoch < 1:
            remedy = f"the training data has only {len(self.train_dataset)} problems; lower it or add data"
            raise UserError("data.train_batch_size", self.config.data.train_batch_size, remedy)
        with open_dict(self.config):
            # the schedule alone decides how long a run is; verl stops at whichever comes first
            self.config.trainer.total_epochs = -(-self.schedule.total_steps // self.steps_per_epoch)

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        return self._draws.number(super()._next_train_batch(num_prompts), self.global_steps)

    def _setup(self) -> None:
        self._init_tokenizer()
        self._init_dataloader()
        self._init_dump_executor()
        self._load_checkpoint()
        self.activity.now(self.global_steps, STARTING)
        about = f"resuming after step {self.global_steps} of" if self.global_steps else "starting"
        say(f"{about} {self.schedule.total_steps} steps: loading the policies and starting their engines")
        pools = None
        if self.settings.pools is Pools.SHARED:
            nodes = [self.config.trainer.n_gpus_per_node] * self.config.trainer.nnodes
            manager = ResourcePoolManager(resource_pool_spec={"global_pool": nodes}, mapping={})
            manager.create_resource_pool()
            pools = manager.resource_pool_dict
            for pool in pools.values():
                # verl makes them when the first workers come, and those of both policies may come at once
                pool.get_placement_groups(device_name=self.config.trainer.device)
        players = self.settings.players
        self.policies: dict[str, Policy] = {name: self._make_policy(name, players[name], pools) for name in players}
        # an engine measures how much memory its device has left, so on one device they start one after the other
        apart = self.settings.pools is Pools.SEPARATE or self.config.trainer.device == "cpu"
        with ThreadPoolExecutor(max_workers=len(self.policies) if apart else 1) as starting:
            list(starting.map(lambda policy: policy.init(), self.policies.values()))
        for policy in self.policies.values():
            if policy.global_steps != self.global_steps and isinstance(policy, PolicyTrainer):
                raise RuntimeError(f"{policy.name} resumed at step {policy.global_steps}, not {self.global_steps}")
        self.activity.set_ranks({name: policy.nodes() for name, policy in self.policies.items()})
        self.activity.set_workers({i: what for p in self.policies.values() for i, what in p.workers().items()})
        # verl's validation and task runner ask the trainer for these
        trained = next(policy for policy in self.policies.values() if isinstance(policy, PolicyTrainer))
        self.reward_loop_manager = trained.reward_loop_manager
        self.teacher_model_manager = None

    def on_init_end(self) -> None:
        """The policies gave their engines their weights in their own `init`."""

    def policy_of(self, role: Role) -> Policy:
        """The policy that plays a role."""
        return next(policy for policy in self.policies.values() if role in policy.roles)

    def _make_policy(self, name: str, roles: Sequence[Role], pools: dict[str, Any] | None) -> Policy:
        built = self.config.longshort.get("policy_configs")
        if not built:
            remedy = "start the run with `longshort train`: overrides per policy are merged before verl resolves"
            raise UserError("longshort.policy_configs", built, remedy)
        config = DictConfig(plain_dict(built[name]))
        resumed = self.checkpoints.source.policy_folder(name, self.global_steps) if self.global_steps else None
        point_at_checkpoint(config, resumed)
        check_by_verl(config, policy_key(name))
        updates, total = self.schedule.updates(roles[0]), self.schedule.total_steps
        if updates == 0:
            return FrozenPolicy(name, roles, config)
        return PolicyTrainer(name, roles, config, updates=updates, total_steps=total, pools=pools)

    def get_llm_client(self) -> PairClient:
        """The clients of both roles' policies, as one object that verl hands to the agent loops."""
        configs = {role: self.policy_of(role).config.actor_rollout_ref.model for role in ROLES}
        clients = {role: self.policy_of(role).get_llm_client() for role in ROLES}
        return PairClient(clients=clients, model_configs=configs)

    def get_teacher_client(self) -> None:
        """No distillation."""

    def _rollout_server_managers(self) -> list[Any]:
        return [policy.llm_server_manager for policy in self.policies.values()]

    def _start_profiling(self) -> None:
        """Profile a policy with verl's own trainer: its profiler follows one worker group only."""

    def _stop_profiling(self) -> None:
        """See `_start_profiling`."""

    # ---- a step ------------------------------------------------------------------------------------

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> KVBatchMeta:
        """One training step; returns all rows, with the padding that verl added to the learners' rows."""
        self.activity.now(self.global_steps, GENERATING)
        # None: nothing was read yet, and nothing has changed since the run began
        position = None if self.train_dataloader_it is None else self.train_dataloader.state_dict()
        try:
            self._stop.check()
            self.prepare_step()
            with marked_timer("gen", timing_raw, color="red"):
                batch, sampled = self.replay_buffer.sample(
                    global_steps=self.global_steps,
                    partition_id="train",
                    batch_size=self.config.data.train_batch_size,
                )
        except RunStoppedError:
            self._save_before_end(self.global_steps - 1, position)
            raise
        metrics.update(sampled)
        roles = self.schedule.learners(self.global_steps)
        learners = [policy for policy in self.policies.values() if policy.roles[0] in roles]
        for policy in self.policies.values():
            # a pool of its own has room for engine and training; only learners' weights are about to change
            if self.settings.pools is Pools.SHARED or policy in learners:
                policy.sleep()
        rows = split_by_role(batch)
        with marked_timer("reward", timing_raw, color="yellow"):
            rewards = self._reward(rows, metrics)
        self._learned = {}
        done = [rows[role] for role in ROLES if role not in roles]
        for policy in learners:
            assert isinstance(policy, PolicyTrainer)
            with marked_timer(f"learn_{policy.name}", timing_raw, color="blue"):
                done.append(self._learn(policy, [rows[role] for role in policy.roles], rewards, metrics))
        batch = joined(done)
        # before the checkpoint: a run that is resumed from it has the step's trajectories, too
        with marked_timer("log_trajectories", timing_raw, color="green"):
            log_step(
                self.checkpoints.store.root,
                batch,
                [learned for learned, _ in self._learned.values()],
                count=self.settings.log_groups,
                weights=self.settings.weights,
                step=self.global_steps,
                round_name=self.schedule.round_name(self.global_steps),
            )
        return batch

    def _reward(self, rows: dict[Role, KVBatchMeta], metrics: dict[str, Any]) -> dict[str, RoleReward]:
        facts = {role: [x["reward_extra_info"] for x in read_extra_fields(rows[role])] for role in ROLES}
        keys = [key for role in ROLES for key in rows[role].keys]
        both = [fact for role in ROLES for fact in facts[role]]
        rewards = reward_rows(keys, both, self.settings.weights, self.global_steps)
        for role in ROLES:
            write_rewards(rows[role], rewards)
        metrics.update(role_metrics(rewards))
        metrics.update(pair_metrics(rows[Role.LONG].keys, facts[Role.LONG]))
        metrics.update(weight_metrics(self.settings.weights, self.global_steps, "pair"))
        return rewards

    def _learn(
        self,
        policy: PolicyTrainer,
        by_role: Sequence[KVBatchMeta],
        rewards: Mapping[str, RoleReward],
        metrics: dict[str, Any],
    ) -> KVBatchMeta:
        """Let a policy learn from the rows of its roles that teach it; returns all of them, with padding."""
        rows, chosen = joined(list(by_role)), list[str]()
        for role, own in zip(policy.roles, by_role, strict=True):
            tokens = own_tokens(own)
            teaching = teaching_rows({key: rewards[key] for key in own.keys}, tokens, compares=policy.compares)
            taught = sum(tokens[key] for key in teaching.keys)
            learns = taught >= FEWEST_TOKENS
            metrics.update(teaching.metrics(role))
            metrics.update({f"{role}/own_tokens": taught, f"{role}/updated": float(learns)})
            chosen += teaching.keys if learns else ()
        if not chosen:
            return rows
        self.activity.now(self.global_steps, f"{policy.name} learns")
        self.checkpoints.written.pop(policy.name, None)
        left_out = rows.select_keys([key for key in rows.keys if key not in set(chosen)])
        batch, learned, timing = policy.learn(
            rows.select_keys(chosen),
            self.global_steps,
            update=self.schedule.updates(policy.roles[0], until=self.global_steps),
            credit=Credit.of(rewards, self.settings.weights, self.global_steps),
        )
        self._learned[policy.name] = (batch, timing)
        metrics.update({f"{policy.name}/{name}": value for name, value in learned.items()})
        return joined([batch, left_out])

    def on_step_end(self) -> None:
        """Save the end of a round, and give the engines their weights.

        Learners have new ones, and an engine that slept may have lost those it had.
        """
        self._save_end_of_round()
        self.activity.now(self.global_steps, "giving the engines their weights")
        with marked_timer("update_weights", self.timing_raw, color="red"):
            self._sent = {name: policy.sync(self.global_steps) for name, policy in self.policies.items()}

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict[str, Any], timing_raw: dict[str, float], global_steps: int, epoch: int
    ) -> None:
        metrics.update({"training/global_step": global_steps, "training/epoch": epoch})
        metrics["training/round"] = self.schedule.round_of(global_steps)
        metrics.update({f"timing_s/{name}": seconds for name, seconds in timing_raw.items()})
        metrics.update({f"{name}/weights_sent": float(sent) for name, sent in self._sent.items()})
        for policy_name, (rows, timing) in self._learned.items():
            policy = self.policies[policy_name]
            assert isinstance(policy, PolicyTrainer)
            own: dict[str, Any] = {}
            times = {**timing, "gen": timing_raw["gen"], "step": timing_raw["step"]}
            policy._compute_metrics(rows, own, times, global_steps=global_steps, epoch=epoch)
            metrics.update({f"{policy_name}/{name}": value for name, value in own.items()})
        self._say(metrics, timing_raw)

    # ---- the console -------------------------------------------------------------------------------

    def on_train_begin(self) -> None:
        """Say what the validation before the first step gave; from here on steps are timed."""
        super().on_train_begin()
        self._lines.begin(self.global_steps - 1)
        self.best_pair.say()

    def _say(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> None:
        step = self.global_steps
        self._lines.step(step, metrics, PAIR, self.schedule.round_name(step))
        if "save_checkpoint" in timing_raw:
            say_checkpoint(self.checkpoints.store.pair_folder(step), timing_raw["save_checkpoint"])
        if "testing" in timing_raw:
            self.best_pair.say()

    # ---- verl's own files of prompts and responses -------------------------------------------------

    def note_validated(self, batch: KVBatchMeta) -> None:
        """Keep what the rows of a validation say, if it is to be written to a file."""
        if self.config.trainer.get("validation_data_dir"):
            self._read_texts(batch)

    def _log_rollout_data(self, batch: KVBatchMeta, timing_raw: dict[str, float], rollout_data_dir: str) -> None:
        rows = without_padding(batch)
        self._read_texts(rows)
        super()._log_rollout_data(rows, timing_raw, rollout_data_dir)

    def _read_texts(self, batch: KVBatchMeta) -> None:
        for role, rows in split_by_role(batch).items():
            self._texts.update(read_texts(rows, tokenizer_of(self.policy_of(role).config.actor_rollout_ref.model)))

    def _dump_generations(
        self,
        inputs: list[str],
        outputs: list[str],
        gts: list[Any],
        scores: list[float],
        reward_extra_infos_dict: dict[str, list[Any]],
        dump_path: str,
    ) -> None:
        # verl has decoded both roles' rows with one tokenizer
        keys = reward_extra_infos_dict["uid"]
        inputs, outputs = ([self._texts[key][part] for key in keys] for part in (0, 1))
        self._texts = {}
        named = {**reward_extra_infos_dict, "role": [ReplayKey.of(key).role.value for key in keys]}
        super()._dump_generations(inputs, outputs, gts, scores, named, dump_path)

    # ---- validation --------------------------------------------------------------------------------

    def _val_metrics_update(
        self, data_sources: Any, sample_uids: Any, reward_extra_infos_dict: Any, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        metrics = super()._val_metrics_update(data_sources, sample_uids, reward_extra_infos_dict, *args, **kwargs)
        expected = {uid: count for (_, uid), count in kwargs["expected_acc_counts"].items()}
        validated = Validated.of(self.global_steps, expected, sample_uids, reward_extra_infos_dict)
        self.best_pair.last = validated
        summary = validated.summary()
        metrics.update({"val/accuracy": summary.accuracy, "val/tokens": summary.tokens})
        metrics.update(self.replay_buffer.validation_failures())
        return metrics

    def _validate(self) -> dict[str, float]:
        try:
            return super()._validate()
        except RunStoppedError:
            position = None if self.train_dataloader_it is None else self.train_dataloader.state_dict()
            self._save_before_end(self.global_steps, position)
            raise

    def on_validate_begin(self) -> None:
        """Note it in the run's activity."""
        self.activity.now(self.global_steps, VALIDATING)

    def on_validate_end(self) -> None:
        """Keep the checkpoint whose pair has the best accuracy-efficiency score against the starting pair."""
        self.best_pair.choose(
            lambda step: {role: self.policy_of(role).exported(step) for role in ROLES},
        )
        self.checkpoints.prune()
        if self.config.trainer.get("val_only"):
            # no step follows that would say it
            self.best_pair.say()

    # ---- checkpoints -------------------------------------------------------------------------------

    def _save_checkpoint(self) -> None:
        if self.global_steps != self.checkpoints.saved:
            self._save(self.global_steps, self.train_dataloader.state_dict())

    def _save(self, step: int, position: dict[str, Any]) -> None:
        self.activity.now(step, "saving a checkpoint")
        self.checkpoints.save(step, position, self.policies)

    def _save_before_end(self, step: int, position: dict[str, Any] | None) -> None:
        """Save what was reached with the last step of a run that is to end, unless that is done."""
        if position is not None and step != self.checkpoints.saved and self.config.trainer.save_freq > 0:
            for policy in self.policies.values():
                policy.sleep()
            self._save(step, position)

    def _save_end_of_round(self) -> None:
        if self.config.trainer.save_freq > 0 and self.schedule.ends_round(self.global_steps):
            with marked_timer("save_checkpoint", self.timing_raw, color="green"):
                self._save_checkpoint()

    def _load_checkpoint(self) -> None:
        self.checkpoints = PairCheckpoints.of(self.config, self.settings)
        self.global_steps = self.checkpoints.first
        self.best_pair = BestPair(self.checkpoints.store, start=self.checkpoints.load(self.train_dataloader))
