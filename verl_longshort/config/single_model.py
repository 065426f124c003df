"""The `longshort` block of a single model's training, checked and typed. Nothing here knows verl.

Each key is documented in `config/single_trainer.yaml`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longshort_reward import RewardWeights
from longshort_reward.errors import UserError
from omegaconf import DictConfig

from verl_longshort.config.pair import check_keys, parse_weights, plain_dict, positive_seconds
from verl_longshort.core.single_model import SingleMode

_KEYS = ("model", "steps", "mode", "system_prompt", "token_budget", "reward", "rollout_timeout_s")


@dataclass(frozen=True, kw_only=True)
class SingleSettings:
    """Everything of the block."""

    model: str
    steps: int
    mode: SingleMode
    system_prompt: str
    token_budget: int
    weights: RewardWeights
    answer_timeout_s: float
    rollout_timeout_s: float

    @classmethod
    def parse(cls, block: Mapping[str, Any]) -> "SingleSettings":
        """Check a block of plain containers.

        Raises:
            UserError: an unknown key, or a value that cannot be used.
        """
        check_keys(block, "longshort", _KEYS)
        reward = dict(block["reward"])
        timeout = positive_seconds(reward.pop("answer_timeout_s"), "longshort.reward.answer_timeout_s")
        check_keys(reward, "longshort.reward", ("eta", "lambda", "mu"))
        steps = _whole(block["steps"], "longshort.steps", least=1)
        return cls(
            model=str(block["model"]),
            steps=steps,
            mode=_mode(block["mode"]),
            system_prompt=str(block["system_prompt"]),
            # the opening tag and one token
            token_budget=_whole(block["token_budget"], "longshort.token_budget", least=2),
            weights=parse_weights(reward, steps),
            answer_timeout_s=timeout,
            rollout_timeout_s=positive_seconds(block["rollout_timeout_s"], "longshort.rollout_timeout_s"),
        )


def single_settings_of(config: DictConfig) -> SingleSettings:
    """The settings of a run's whole configuration. Raises UserError when they cannot be used."""
    if "longshort" not in config:
        remedy = "this trainer needs the longshort block; start the run with `longshort train-single`"
        raise UserError("longshort", None, remedy)
    return SingleSettings.parse(plain_dict(config.longshort))


def _mode(value: str) -> SingleMode:
    try:
        return SingleMode(value)
    except ValueError:
        raise UserError("longshort.mode", value, f"must be one of {', '.join(SingleMode)}") from None


def _whole(value: Any, key: str, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(key, value, f"set a whole number of {least} or more")
    return value
