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
    """The prompts that a step has drawn, in order.

    Agent loops sample by how often a problem was drawn, since replacements may reach into the next epoch. The order of
    a batch is that of its draws, and not that in which trajectories end: mini batches are cut from it.
    """

    def __init__(self) -> None:
        self._step, self._drawn, self._places = 0, Counter[Any](), dict[str, int]()

    def number(self, batch: TensorDict, step: int) -> TensorDict:
        """Put `draw` into a batch of prompts of `step`, in place: how often each was drawn in the step before."""
        if step != self._step:
            self._step, self._drawn, self._places = step, Counter(), {}
        draws = []
        for index, uid in zip(batch["index"], batch["uid"], strict=True):
            draws.append(self._drawn[index])
            self._drawn[index] += 1
            self._places[str(uid)] = len(self._places)
        tensordict_utils.assign_non_tensor_stack(batch, "draw", draws)
        return batch

    def place(self, group: str) -> int:
        """When a group's prompt was drawn in the step, from 0."""
        return self._places[group]

    def place_of_row(self, key: str) -> tuple[int, int, int]:
        """Sorts the rows of a step: by group, trajectory and role."""
        group, session, index = key.rsplit("_", 2)
        return self.place(group), int(session), int(index)


class FilteringReplayBuffer(ReplayBuffer):
    """verl's replay buffer of `trainer`, with dynamic sampling where `algorithm.filter_groups.enable` is set.

    A step may generate `max_num_gen_batches` times its prompts. When these are used up, groups that teach nobody fill
    what is missing from the batch, so that every step learns from whole batches and ends.

    What a step learns from does not depend on which trajectories end first: groups are judged when all that were asked
    for have ended, replaced by twice as many (as verl does), and chosen in the order of their `draws`.
    """

    def __init__(
        self, trainer: PPOTrainerSync, *, poll_interval: float, shared_value: SharedValue, draws: Draws
    ) -> None:
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
        self._draws = draws
        self._batches = chosen.max_num_gen_batches
        # of the step that is sampled: its number, its prompts, how many more it may ask for, and asks for next
        self._step, self._wanted, self._left, self._next = 0, 0, 0, 0
        self._counted: set[str] = set()
        self._tokens = 0.0

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """Wait for `batch_size` groups that teach, as far as the step may generate."""
        if not self._filters(partition_id):
            return super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        more = (self._batches - 1) * batch_size
        self._step, self._wanted, self._left, self._next, self._tokens = global_steps, batch_size, more, 0, 0.0
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
        """Ask for as many as was decided when all groups had ended; verl's number depends on when it looked."""
        prompts, self._next = self._next, 0
        if prompts:
            self._left -= prompts
            self._add_prompts(prompts)

    def _filters(self, partition_id: str) -> bool:
        return self.filter_groups_metric is not None and partition_id == TRAIN

    def _in_flight(self) -> int:
        return len(self.pending_keys[TRAIN]) + len(self.running_keys[TRAIN])

    def _dapo_filtered_keys(self, partition_id: str) -> tuple[set[str], Counter[float]]:
        """The finished groups to drop, and how many of them share each value; none before all groups have ended."""
        if not self._filters(partition_id) or self._in_flight():
            return set(), Counter()
        verdicts = self._dapo_classification_cache[TRAIN]
        finished = self.finished_keys[TRAIN]
        self._judge(finished - verdicts.keys())
        useless = sorted((group for group in finished if verdicts[group] is not None), key=self._draws.place)
        ended = len(finished) + len(self.failure_keys[TRAIN])
        # the last ones, so that those that were drawn first fill what is missing
        kept = max(0, len(useless) - max(0, ended + self._left - self._wanted))
        dropped = useless[kept:]
        missing = max(0, self._wanted - (ended - len(dropped)))
        assert self.train_batch_size is not None
        self._next = min(2 * missing, self._left, self.max_inflight_gen_batches * self.train_batch_size)
        return set(dropped), Counter(value for group in dropped if (value := verdicts[group]) is not None)

    def _sampleable_terminal_keys(self, partition_id: str, eviction_reasons: Any) -> set[str]:
        if self._filters(partition_id) and self._in_flight():
            return set()
        return super()._sampleable_terminal_keys(partition_id, eviction_reasons)

    def _select_prompt_uids(
        self, partition_id: str, sampleable_keys: set[str], batch_size: int
    ) -> tuple[list[str], dict[str, dict[str, Any]], dict[str, int]]:
        every = super()._select_prompt_uids(partition_id, sampleable_keys, len(sampleable_keys))
        groups, *snapshots = every
        if partition_id == TRAIN:
            groups.sort(key=self._draws.place)
        return groups[:batch_size], *snapshots

    def _materialize_batch(
        self, partition_id: str, selected_prompt_uids: list[str], partition_snapshot: dict[str, dict[str, Any]]
    ) -> KVBatchMeta:
        batch = super()._materialize_batch(partition_id, selected_prompt_uids, partition_snapshot)
        return batch.select_keys(sorted(batch.keys, key=self._draws.place_of_row)) if partition_id == TRAIN else batch

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
