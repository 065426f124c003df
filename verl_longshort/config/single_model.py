"""The `longshort` block of a single model's training, checked and typed. Nothing here knows verl.

Each key is documented in `config/single_trainer.yaml`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge
from longshort_reward import RewardWeights
from longshort_reward.errors import UserError
from longshort_reward.settings import Remedy, Seconds, SettingError, Settings, Share
from omegaconf import DictConfig
from pydantic import Strict, model_validator
from typing_extensions import Self

from verl_longshort.config.pair import LoggedGroups, RewardSettings, plain_dict, with_ramp_ends
from verl_longshort.core.single_model import SingleMode


class SingleSettings(Settings):
    """Everything of the block."""

    model: str
    steps: Annotated[int, Strict(), Ge(1), Remedy("set a whole number of 1 or more")]
    mode: SingleMode
    system_prompt: str
    # the opening tag and one token
    token_budget: Annotated[int, Strict(), Ge(2), Remedy("set a whole number of 2 or more")]
    reward: RewardSettings
    rollout_timeout_s: Seconds
    phase_timeout_s: Seconds
    log_groups: LoggedGroups
    max_failed_share: Share
    # what the launcher says of the run
    notes: Any = None

    @model_validator(mode="before")
    @classmethod
    def _ramps_end_with_the_run(cls, block: Any) -> Any:
        if not isinstance(block, Mapping) or not isinstance(block.get("steps"), int):
            return block
        return {**block, "reward": with_ramp_ends(block.get("reward"), block["steps"])}

    @model_validator(mode="after")
    def _nobody_to_ask(self) -> Self:
        if self.reward.rethink and self.mode is not SingleMode.JOINT:
            remedy = f"in the mode {self.mode} a model never asks for another thought; leave it out, or use mode joint"
            raise SettingError("reward.rethink", self.reward.rethink, remedy)
        return self

    @property
    def weights(self) -> RewardWeights:
        """Of the reward's terms."""
        return self.reward

    @property
    def answer_timeout_s(self) -> float:
        """Seconds that checking one answer may take."""
        return self.reward.answer_timeout_s


def single_settings_of(config: DictConfig) -> SingleSettings:
    """The settings of a run's whole configuration. Raises UserError when they cannot be used."""
    if "longshort" not in config:
        remedy = "this trainer needs the longshort block; start the run with `longshort train-single`"
        raise UserError("longshort", None, remedy)
    return SingleSettings.parse(plain_dict(config.longshort))
