"""The `longshort` block of a training configuration, checked and typed. Nothing here knows verl.

Each key is documented in `config/longshort_trainer.yaml`; this module is the only place that reads them.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any

from longshort_reward import RewardWeights
from longshort_reward.compat import StrEnum
from longshort_reward.errors import UserError
from longshort_reward.protocol import DEFAULT_PROMPTS, ROLES, Role, RolePrompts
from longshort_reward.settings import PositiveInt, Remedy, Seconds, SettingError, Settings, Share
from omegaconf import DictConfig, OmegaConf
from pydantic import BeforeValidator, Field, Strict, model_validator
from typing_extensions import Self

from verl_longshort.core.environment import Limits
from verl_longshort.core.policies import TIED, players
from verl_longshort.core.schedule import Round, Schedule


class Pools(StrEnum):
    """Where the two policies live."""

    SHARED = "shared"
    SEPARATE = "separate"


class OfPair(Settings):
    """A text for each role, such as the name of its model. None: none is given."""

    long: str | None = None
    short: str | None = None

    def of(self, role: Role) -> str | None:
        """The role's."""
        return self.long if role is Role.LONG else self.short


class PromptSettings(OfPair):
    """System prompts by role. None: the prompt that ships with the package; an empty one: no system message."""

    @property
    def role_prompts(self) -> RolePrompts:
        """The prompts that are used."""
        return RolePrompts(
            long=DEFAULT_PROMPTS.long if self.long is None else self.long,
            short=DEFAULT_PROMPTS.short if self.short is None else self.short,
        )


class EnvironmentSettings(Limits):
    """The block `longshort.environment`: limits of a trajectory, and system prompts."""

    prompts: PromptSettings = PromptSettings()

    @property
    def limits(self) -> Limits:
        """The limits alone."""
        return Limits(**{name: getattr(self, name) for name in Limits.model_fields})


class RewardSettings(RewardWeights):
    """The block `longshort.reward`."""

    answer_timeout_s: Seconds


def _count_or_all(value: Any) -> Any:
    if value != "all" and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise SettingError("", value, "must be a whole number from 0 on, or all")
    return None if value == "all" else value


LoggedGroups = Annotated[int | None, BeforeValidator(_count_or_all)]
"""How many groups of a step are logged; None, written `all`: every one."""


class PairSettings(Settings):
    """The `longshort` block of a pair's training; the per-policy verl overrides are handed through."""

    rounds: Any = Field(alias="schedule")
    steps_per_round: Any
    tied: Annotated[bool, Strict(), Remedy("must be true or false")] = False
    environment: EnvironmentSettings
    reward: RewardSettings
    pools: Annotated[Pools, Remedy("use shared or separate")]
    rollout_timeout_s: Seconds
    phase_timeout_s: Seconds
    max_failed_share: Share
    keep_checkpoints: PositiveInt | None
    log_groups: LoggedGroups
    policies: Any = None
    # what the launcher leaves for verl's processes
    policy_configs: Any = None
    notes: Any = None

    @model_validator(mode="before")
    @classmethod
    def _ramps_end_with_the_run(cls, block: Any) -> Any:
        if not isinstance(block, Mapping) or "schedule" not in block or "steps_per_round" not in block:
            return block
        schedule = Schedule.parse(block["schedule"], block["steps_per_round"])
        return {**block, "reward": with_ramp_ends(block.get("reward"), schedule.total_steps)}

    @model_validator(mode="after")
    def _one_policy_is_one(self) -> Self:
        if not self.tied:
            return self
        alone = [one.value for one in self.schedule.rounds if one is not Round.BOTH]
        if alone:
            remedy = f"with longshort.tied one policy learns from both roles in every round: {alone[0]} must be both"
            raise SettingError("schedule", [one.value for one in self.schedule.rounds], remedy)
        if self.pools is Pools.SEPARATE:
            raise SettingError("pools", self.pools, "with longshort.tied there is one policy, and one pool: set shared")
        long, short = (dict(leaves((self.policies or {}).get(role.value) or {})) for role in ROLES)
        for key in sorted(long.keys() | short.keys()):
            if long.get(key) != short.get(key):
                remedy = (
                    f"longshort.policies.{Role.LONG}.{key} is {long.get(key)}, and with longshort.tied one policy "
                    f"plays both roles: give both the same, or set {key} for the run"
                )
                raise SettingError(f"policies.{Role.SHORT}.{key}", short.get(key), remedy)
        return self

    @cached_property
    def schedule(self) -> Schedule:
        """Rounds and steps."""
        return Schedule.parse(self.rounds, self.steps_per_round)

    @property
    def players(self) -> dict[str, tuple[Role, ...]]:
        """The policies by name, with the roles that each plays."""
        return players(tied=self.tied)

    @property
    def limits(self) -> Limits:
        """How far a trajectory may go."""
        return self.environment.limits

    @property
    def prompts(self) -> RolePrompts:
        """System prompts."""
        return self.environment.prompts.role_prompts

    @property
    def weights(self) -> RewardWeights:
        """Of the reward's terms."""
        return self.reward

    @property
    def answer_timeout_s(self) -> float:
        """Seconds that checking one answer may take."""
        return self.reward.answer_timeout_s


def settings_of(config: DictConfig) -> PairSettings:
    """The settings of a run's whole configuration.

    Raises:
        UserError: there is no `longshort` block, or it cannot be used.
    """
    if "longshort" not in config:
        remedy = "this trainer needs the longshort block; start the run with `longshort train`"
        raise UserError("longshort", None, remedy)
    # the policies' own configurations lie in the block too; they are large and nothing of ours
    chosen = OmegaConf.masked_copy(config.longshort, [k for k in config.longshort if k != "policy_configs"])
    return PairSettings.parse(plain_dict(chosen))


def policy_key(name: str) -> str:
    """Where the settings of one policy are; of one that plays both roles, both roles' say the same."""
    return f"longshort.policies.{Role.LONG if name == TIED else name}"


def plain_dict(config: DictConfig) -> dict[str, Any]:
    """A configuration as plain containers, interpolations resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Key and value of everything in a container that is not one itself."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def with_ramp_ends(reward: Any, total_steps: int) -> Any:
    """The reward block with the last step of the run where a ramp has no end; none may end later."""
    if not isinstance(reward, Mapping):
        return reward

    def ended(key: str, ramp: Any) -> Any:
        end = ramp.get("end_step") if isinstance(ramp, Mapping) else None
        if isinstance(end, int) and end > total_steps:
            remedy = f"the run has {total_steps} steps; the ramp must end by then (null: at the last step)"
            raise SettingError(f"reward.{key}.end_step", end, remedy)
        return {**ramp, "end_step": total_steps} if isinstance(ramp, Mapping) and end is None else ramp

    mu = {"mu": ended("mu", reward["mu"])} if "mu" in reward else {}
    terms = {name: ended(f"terms.{name}", ramp) for name, ramp in (reward.get("terms") or {}).items()}
    return {**reward, **mu, "terms": terms}
