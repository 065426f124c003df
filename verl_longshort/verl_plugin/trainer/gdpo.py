"""Advantages of a batch's rows: of which rows they are computed together, and from which parts of the reward.

`algorithm.adv_estimator=gdpo` (arXiv 2601.05242): each term of the reward is normalised by itself.

A term's values are normalised within each group, multiplied by the term's weight of the step, added up, and whitened
over the batch. The size of a weight then counts wherever several groups differ in what varies in them.

verl 0.9.1's V1 trainer hands its own `gdpo` none of the fields that it reads. `TermTrainer` keeps them at hand while
verl computes advantages; the estimator registered here passes them to verl's function.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from longshort_reward import RewardWeights, RoleReward
from omegaconf import DictConfig, OmegaConf, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.core_algos import compute_gdpo_outcome_advantage, register_adv_est
from verl.trainer.ppo.v1 import PPOTrainerSync
from verl.trainer.ppo.v1.utils import MetricsAggregator

from verl_longshort.verl_plugin.trainer.rows import joined, on_grid

NAME = "gdpo"
_OWN = "longshort_gdpo"


@dataclass(frozen=True, kw_only=True)
class Credit:
    """Rewards of a step's rows by key, and the terms' weights in that step."""

    rewards: Mapping[str, RoleReward]
    weights: Mapping[str, float]

    @classmethod
    def of(cls, rewards: Mapping[str, RoleReward], weights: RewardWeights, step: int) -> "Credit":
        """With the weights of a training step."""
        return cls(rewards=rewards, weights={term.name: weight for term, weight in weights.weighted(step)})


_terms: ContextVar[tuple[Sequence[Mapping[str, float]], Mapping[str, float]]] = ContextVar("terms")
"""Terms of the rows of the batch that verl works on, in its order, and their weights."""


@register_adv_est(_OWN)
def gdpo_advantage(
    *, token_level_rewards: torch.Tensor, response_mask: torch.Tensor, config: DictConfig, index: Any, **_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """verl's GDPO over the terms of the reward; see verl's estimators for arguments and results."""
    rows, weights = _terms.get()
    columns = {name: np.array([on_grid(row.get(name, 0.0)) for row in rows]) for name in weights}
    result: tuple[torch.Tensor, torch.Tensor] = compute_gdpo_outcome_advantage(
        token_level_rewards=token_level_rewards,
        response_mask=response_mask,
        index=index,
        norm_adv_by_std_in_grpo=config.norm_adv_by_std_in_grpo,
        config=OmegaConf.create({"gdpo_reward_keys": list(weights), "gdpo_reward_weights": list(weights.values())}),
        non_tensor_batch=columns,
        # only tells where a row's response ends, and rewards are summed over the row
        batch={"prompts": response_mask[:, :0], "attention_mask": torch.ones_like(response_mask, dtype=torch.long)},
    )
    return result


class TermTrainer(PPOTrainerSync):
    """A verl trainer that says which rows are compared, and whose advantages can be made from the reward's terms."""

    def __init__(self, config: DictConfig) -> None:
        if config.algorithm.adv_estimator == NAME:
            with open_dict(config):
                config.algorithm.adv_estimator = _OWN
        super().__init__(config)

    @abstractmethod
    def credit(self) -> Credit:
        """Of the rows that the step learns from."""

    def compared(self, batch: KVBatchMeta) -> list[KVBatchMeta]:
        """The parts of a batch whose advantages are computed apart from each other: all of it, unless overridden."""
        return [batch]

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        parts = self.compared(batch)
        if len(parts) == 1:
            return self._advantages_of(batch, metrics)
        found, done = MetricsAggregator(), []
        for part in parts:
            own: dict[str, Any] = {}
            done.append(self._advantages_of(part, own))
            found.add_step_metrics(own, sample_count=len(part))
        metrics.update(found.get_aggregated_metrics())
        return joined(done).select_keys(batch.keys)

    def _advantages_of(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        credit = self.credit()
        # verl's synthetic rows have no terms
        rows = [credit.rewards[key].terms if key in credit.rewards else {} for key in batch.keys]
        token = _terms.set((rows, credit.weights))
        try:
            return super()._compute_advantage(batch, metrics)
        finally:
            _terms.reset(token)
