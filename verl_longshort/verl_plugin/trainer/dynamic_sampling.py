"""`algorithm.filter_groups`: groups that teach nobody are dropped and replaced while a step samples (DAPO,
arXiv 2503.14476, section 3.2).

verl's replay buffer does the dropping and replacing. Which groups teach is decided here, since one row has two roles'
rewards to answer for, and so is when to stop: verl's V1 buffer ignores `max_num_gen_batches`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import PPOTrainerSync
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils import tensordict_utils

from verl_longshort.verl_plugin.trainer.group_reward import Facts, ReplayKey
from verl_longshort.verl_plugin.trainer.rows import read_extra_fields

TRAIN = "train"

SharedValue = Callable[[Sequence[str], Sequence[Facts], int], float | None]
"""Keys and facts of the rows of a group, and the training step -> `group_reward.shared_value`."""


class Draws:
    """Numbers a step's draws of a problem, which agent loops sample by: replacements may reach into the next epoch."""

    def __init__(self) -> None:
        self._step, self._drawn = 0, Counter[Any]()

    def number(self, batch: TensorDict, step: int) -> TensorDict:
        """Put `draw` into a batch of prompts of `step`, in place: how often each was drawn in the step before."""
        if step != self._step:
            self._step, self._drawn = step, Counter()
        draws = []
        for index in batch["index"]:
            draws.append(self._drawn[index])
            self._drawn[index] += 1
        tensordict_utils.assign_non_tensor_stack(batch, "draw", draws)
        return batch


class FilteringReplayBuffer(ReplayBuffer):
    """verl's replay buffer of `trainer`, with dynamic sampling where `algorithm.filter_groups.enable` is set.

    A step may generate `max_num_gen_batches` times its prompts. When these are used up, groups that teach nobody fill
    what is missing from the batch, so that every step learns from whole batches and ends.
    """

    def __init__(self, trainer: PPOTrainerSync, *, poll_interval: float, shared_value: SharedValue) -> None:
        v1, chosen = trainer.config.trainer.v1, trainer.config.algorithm.filter_groups
        super().__init__(
            trainer_mode=trainer.trainer_mode,
            trainer_config=v1.get(trainer.trainer_mode, {}),
            max_off_policy_threshold=v1.sampler.max_off_policy_threshold,
            max_off_policy_strategy=v1.sampler.max_off_policy_strategy,
            sampler_kwargs=v1.sampler.sampler_kwargs,
            refill_fn=self._refill,
            poll_interval=poll_interval,
            filter_groups_metric=chosen.metric if chosen.enable else None,
            train_batch_size=trainer.config.data.train_batch_size,
            gen_batch_size=1,
            max_inflight_gen_batches=chosen.max_inflight_gen_batches,
        )
        self._add_prompts = trainer._add_prompts_to_generate
        self._shared_value = shared_value
        self._batches = chosen.max_num_gen_batches
        # of the step that is sampled: its number, its prompts, and how many more it may ask for
        self._step, self._wanted, self._left = 0, 0, 0
        self._counted: set[str] = set()
        self._tokens = 0.0

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """Wait for `batch_size` groups that teach, as far as the step may generate."""
        if self.filter_groups_metric is None or partition_id != TRAIN:
            return super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        more = (self._batches - 1) * batch_size
        self._step, self._wanted, self._left, self._tokens = global_steps, batch_size, more, 0.0
        self._dapo_classification_cache[TRAIN].clear()
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        verdicts = self._dapo_classification_cache[TRAIN]
        kept = {ReplayKey.of(key).group for key in batch.keys}
        return batch, {
            **metrics,
            "training/filter_groups/generated": batch_size + more - self._left,
            "training/filter_groups/tokens": self._tokens,
            "training/filter_groups/unvarying": sum(verdicts.get(group) is not None for group in kept),
        }

    def _refill(self, prompts: int) -> None:
        prompts = min(prompts, self._left)
        if prompts > 0:
            self._left -= prompts
            self._add_prompts(prompts)

    def _dapo_filtered_keys(self, partition_id: str) -> tuple[set[str], Counter[float]]:
        """The finished groups to drop, and how many of them share each value."""
        if self.filter_groups_metric is None or partition_id != TRAIN:
            return set(), Counter()
        verdicts = self._dapo_classification_cache[TRAIN]
        finished = self.finished_keys[TRAIN]
        self._judge(finished - verdicts.keys())
        useless = sorted(group for group in finished if verdicts[group] is not None)
        ended = len(finished) + len(self.failure_keys[TRAIN])
        to_come = len(self.pending_keys[TRAIN]) + len(self.running_keys[TRAIN]) + self._left
        dropped = useless[: max(0, ended + to_come - self._wanted)]
        return set(dropped), Counter(value for group in dropped if (value := verdicts[group]) is not None)

    def _judge(self, groups: set[str]) -> None:
        rows: dict[str, list[str]] = defaultdict(list)
        tags = self.partitions[TRAIN]
        for key in tags:
            if (group := ReplayKey.of(key).group) in groups:
                rows[group].append(key)
        for group in sorted(groups):
            keys = rows[group]
            batch = KVBatchMeta(partition_id=TRAIN, keys=keys, tags=[tags[key] for key in keys])
            facts = [extra["reward_extra_info"] for extra in read_extra_fields(batch)]
            self._dapo_classification_cache[TRAIN][group] = self._shared_value(keys, facts, self._step)
            if group not in self._counted:
                self._counted.add(group)
                by_session = {ReplayKey.of(key).session: fact["tokens"] for key, fact in zip(keys, facts, strict=True)}
                self._tokens += sum(by_session.values())
