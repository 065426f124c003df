"""`trainer.v1.trainer_mode=longshort_single`: verl's own trainer for one model, with the pair's reward.

Everything is verl's: data, updates, checkpoints, resuming. Ours is the replay buffer, which puts each row's
reward in place when its group is complete: the length term compares the answers to one problem.
"""

import copy
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer

from verl_longshort.base.progress import report
from verl_longshort.config.single_model import single_settings_of
from verl_longshort.verl_plugin.trainer.group_reward import weight_metrics
from verl_longshort.verl_plugin.trainer.replay import WatchedReplayBuffer
from verl_longshort.verl_plugin.trainer.rows import read_extra_fields, write_rewards
from verl_longshort.verl_plugin.trainer.single_reward import answer_metrics, reward_answers


class RewardingReplayBuffer(WatchedReplayBuffer):
    """Calls `reward` with the rows of a training step before it hands them out; its metrics go along."""

    def __init__(self, *, reward: Callable[[KVBatchMeta, int], dict[str, float]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._reward = reward

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """Wait for `batch_size` finished groups; raises as `WatchedReplayBuffer.sample`."""
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if partition_id == "train":
            metrics = {**metrics, **self._reward(batch, global_steps)}
        return batch, metrics


@register_trainer("longshort_single")
class SingleTrainer(PPOTrainerSync):
    """Trains one model that writes whole answers alone."""

    def __init__(self, config: DictConfig) -> None:
        config = copy.deepcopy(config)
        with open_dict(config):
            # PPOTrainer takes every mode that is not called "sync" for an asynchronous one
            config.trainer.v1.trainer_mode = "sync"
        self.settings = single_settings_of(config)
        super().__init__(config)

    def _build_replay_buffer(self) -> RewardingReplayBuffer:
        v1 = self.config.trainer.v1
        return RewardingReplayBuffer(
            reward=self._reward,
            timeout_s=self.settings.rollout_timeout_s,
            trainer_mode=self.trainer_mode,
            trainer_config=v1.get(self.trainer_mode, {}),
            max_off_policy_threshold=v1.sampler.max_off_policy_threshold,
            max_off_policy_strategy=v1.sampler.max_off_policy_strategy,
            sampler_kwargs=v1.sampler.sampler_kwargs,
            refill_fn=self._add_prompts_to_generate,
        )

    def _reward(self, batch: KVBatchMeta, step: int) -> dict[str, float]:
        facts = [extra["reward_extra_info"] for extra in read_extra_fields(batch)]
        rewards = reward_answers(batch.keys, facts, self.settings.weights, step)
        write_rewards(batch, rewards)
        return {**answer_metrics(rewards, facts), **weight_metrics(self.settings.weights, step, "single")}

    def on_step_end(self) -> None:
        """Give the engine its weights and say how far the run is."""
        super().on_step_end()
        report(self.global_steps, self.settings.steps, "RL of a single model")
