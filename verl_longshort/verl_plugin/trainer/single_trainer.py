"""`trainer.v1.trainer_mode=longshort_single`: verl's own trainer for one model, with the pair's reward.

Everything is verl's: data, updates, checkpoints, resuming. Ours is the replay buffer, which puts each row's
reward in place when its group is complete: the length term compares the answers to one problem.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longshort_reward.outcome import SINGLE_ROLE
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer
from verl.utils.debug import marked_timer
from verl.workers.rollout.llm_server import LLMServerClient

from verl_longshort.config.single_model import SingleSettings, single_settings_of
from verl_longshort.verl_plugin.rollout.clients import client_of
from verl_longshort.verl_plugin.run.activity import GENERATING, VALIDATING, ActivityFile
from verl_longshort.verl_plugin.run.console import SINGLE, StepLines
from verl_longshort.verl_plugin.run.stop import StopFile
from verl_longshort.verl_plugin.trainer.dynamic_sampling import Draws
from verl_longshort.verl_plugin.trainer.exports import ADAPTER, finish_export
from verl_longshort.verl_plugin.trainer.gdpo import Credit, TermTrainer
from verl_longshort.verl_plugin.trainer.group_reward import (
    Facts,
    reward_rows,
    shared_value,
    single_metrics,
    weight_metrics,
)
from verl_longshort.verl_plugin.trainer.learning import set_horizon
from verl_longshort.verl_plugin.trainer.replay import WatchedReplayBuffer
from verl_longshort.verl_plugin.trainer.rows import read_extra_fields, write_rewards
from verl_longshort.verl_plugin.trainer.sampled import log_step


class RewardingReplayBuffer(WatchedReplayBuffer):
    """Puts the rewards of a training step's rows in place before it hands them out; the metrics go along."""

    def __init__(self, trainer: PPOTrainerSync, settings: SingleSettings, draws: Draws) -> None:
        super().__init__(
            trainer,
            timeout_s=settings.rollout_timeout_s,
            max_failed_share=settings.max_failed_share,
            rows=1,
            prefix="single",
            shared_value=self._shared,
            draws=draws,
        )
        self._weights = settings.weights
        self._metric = trainer.config.algorithm.filter_groups.metric
        self.credit: Credit | None = None

    def _shared(self, keys: Sequence[str], facts: Sequence[Facts], step: int) -> float | None:
        """See `group_reward.shared_value`."""
        return shared_value(keys, facts, self._weights, step, roles=(SINGLE_ROLE,), metric=self._metric)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """Wait for `batch_size` finished groups; raises as `WatchedReplayBuffer.sample`."""
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if partition_id != "train":
            return batch, metrics
        facts = [extra["reward_extra_info"] for extra in read_extra_fields(batch)]
        rewards = reward_rows(batch.keys, facts, self._weights, global_steps)
        write_rewards(batch, rewards)
        self.credit = Credit.of(rewards, self._weights, global_steps)
        weights = weight_metrics(self._weights, global_steps, "single")
        return batch, {**metrics, **single_metrics(rewards, facts), **weights}


@register_trainer("longshort_single")
class SingleTrainer(TermTrainer):
    """Trains one model that writes whole answers alone."""

    def __init__(self, config: DictConfig) -> None:
        config = copy.deepcopy(config)
        with open_dict(config):
            # PPOTrainer takes every mode that is not called "sync" for an asynchronous one
            config.trainer.v1.trainer_mode = "sync"
        self.settings = single_settings_of(config)
        self._lines = StepLines(self.settings.steps)
        self.activity = ActivityFile(config.trainer.default_local_dir, self.settings.steps)
        self._stop = StopFile(config.trainer.default_local_dir)
        self._draws = Draws()
        super().__init__(config)

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        for optim in (self.config.actor_rollout_ref.actor.optim, self.config.critic.optim):
            set_horizon(optim, self.total_training_steps)

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        return self._draws.number(super()._next_train_batch(num_prompts), self.global_steps)

    def _build_replay_buffer(self) -> RewardingReplayBuffer:
        return RewardingReplayBuffer(self, self.settings, self._draws)

    def get_llm_client(self) -> LLMServerClient:
        """The client of the model's servers."""
        return client_of(self.llm_server_manager)

    def _val_metrics_update(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        return {**super()._val_metrics_update(*args, **kwargs), **self.replay_buffer.validation_failures()}

    def credit(self) -> Credit:
        """See `TermTrainer`."""
        credit = self.replay_buffer.credit
        assert credit is not None, "verl learned before it sampled"
        return credit

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> Any:
        """verl's own step; some of what was sampled is written down.

        Raises RunStoppedError when the run was asked to end; what the step before gave is saved.
        """
        if self._stop.is_asked():
            self.global_steps -= 1
            if self.config.trainer.save_freq > 0 and self.train_dataloader_it is not None:
                self._save_checkpoint()
            raise self._stop.stopped()
        batch = super().step(metrics, timing_raw)
        with marked_timer("log_trajectories", timing_raw, color="green"):
            log_step(
                Path(self.config.trainer.default_local_dir),
                batch,
                [batch],
                count=self.settings.log_groups,
                weights=self.settings.weights,
                step=self.global_steps,
            )
        return batch

    def on_step_begin(self) -> None:
        """Note what the run does; so do the other hooks."""
        super().on_step_begin()
        self.activity.now(self.global_steps, GENERATING)

    def on_sample_end(self) -> None:
        """See `on_step_begin`."""
        super().on_sample_end()
        self.activity.now(self.global_steps, "the model learns")

    def _save_checkpoint(self) -> None:
        self.activity.now(self.global_steps, "saving a checkpoint")
        super()._save_checkpoint()
        saved = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        actor, model = saved / "actor", self.config.actor_rollout_ref.model
        finish_export(actor / "huggingface", model, role=None, adapter=actor / ADAPTER)

    def on_step_end(self) -> None:
        """See `on_step_begin`."""
        self.activity.now(self.global_steps, "giving the engine its weights")
        super().on_step_end()

    def on_validate_begin(self) -> None:
        """See `on_step_begin`."""
        super().on_validate_begin()
        self.activity.now(self.global_steps, VALIDATING)

    def on_train_begin(self) -> None:
        """From here on steps are timed."""
        super().on_train_begin()
        self._lines.begin(self.global_steps - 1)

    def _compute_metrics(
        self, batch: Any, metrics: dict[str, Any], timing_raw: dict[str, float], global_steps: int, epoch: int
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps=global_steps, epoch=epoch)
        self._lines.step(global_steps, metrics, SINGLE)
