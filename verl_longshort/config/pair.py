"""The `longshort` block of a training configuration, checked and typed. Nothing here knows verl.

Each key is documented in `config/longshort_trainer.yaml`; this module is the only place that reads them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from longshort_reward import RewardWeights
from longshort_reward.compat import StrEnum
from longshort_reward.errors import UserError
from longshort_reward.protocol import DEFAULT_PROMPTS, ROLES, Role, RolePrompts
from omegaconf import DictConfig, OmegaConf

from verl_longshort.core.environment import Limits
from verl_longshort.core.schedule import Schedule


class Pools(StrEnum):
    """Where the two policies live."""

    SHARED = "shared"
    SEPARATE = "separate"


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """Everything of the `longshort` block except the per-policy verl overrides."""

    schedule: Schedule
    limits: Limits
    prompts: RolePrompts
    weights: RewardWeights
    answer_timeout_s: float
    pools: Pools
    rollout_timeout_s: float
    keep_checkpoints: int | None

    @classmethod
    def parse(cls, block: Mapping[str, Any]) -> "PairSettings":
        """Check a `longshort` block (plain containers).

        Raises:
            UserError: an unknown or missing key, or a value that cannot be used.
        """
        known = ("schedule", "steps_per_round", "pools", "environment", "reward", "rollout_timeout_s")
        check_keys(block, "longshort", (*known, "keep_checkpoints", "policies", "policy_configs"))
        schedule = Schedule.parse(block["schedule"], block["steps_per_round"])
        environment = dict(block["environment"])
        prompts = parse_prompts(environment.pop("prompts", None) or {})
        reward = dict(block["reward"])
        timeout = positive_seconds(reward.pop("answer_timeout_s"), "longshort.reward.answer_timeout_s")
        return cls(
            schedule=schedule,
            limits=parse_limits(environment),
            prompts=prompts,
            weights=parse_weights(reward, schedule.total_steps),
            answer_timeout_s=timeout,
            pools=_pools(block["pools"]),
            rollout_timeout_s=positive_seconds(block["rollout_timeout_s"], "longshort.rollout_timeout_s"),
            keep_checkpoints=_keep(block["keep_checkpoints"]),
        )


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


def plain_dict(config: DictConfig) -> dict[str, Any]:
    """A configuration as plain containers, interpolations resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def check_keys(block: Mapping[str, Any], where: str, known: Sequence[str]) -> None:
    """Refuse keys that nobody reads: a typo must not train the wrong thing.

    Raises:
        UserError: naming the key and the nearest known one.
    """
    for key in block:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
            raise UserError(f"{where}.{key}", block[key], f"unknown key; {hint}")


def parse_prompts(given: Mapping[str, str | None]) -> RolePrompts:
    """The system prompts of `longshort.environment.prompts`. Raises UserError for an unknown key."""
    check_keys(given, "longshort.environment.prompts", [r.value for r in ROLES])
    # null means the prompt that ships with the package; an empty string means no system message
    texts = {r: DEFAULT_PROMPTS.for_role(r) if given.get(r.value) is None else given[r.value] for r in ROLES}
    return RolePrompts(long=str(texts[Role.LONG]), short=str(texts[Role.SHORT]))


def parse_limits(environment: Mapping[str, Any]) -> Limits:
    """The limits of `longshort.environment`, without its prompts. Raises UserError for a key or value."""
    keys = ("max_turns", "long_turn_tokens", "short_turn_tokens", "token_budget")
    check_keys(environment, "longshort.environment", keys)
    for key in keys:
        if key not in environment:
            raise UserError(f"longshort.environment.{key}", None, "missing; give a whole number")
    try:
        return Limits(**environment)
    except ValueError as error:
        raise UserError("longshort.environment", dict(environment), str(error)) from error


def parse_weights(reward: Mapping[str, Any], total_steps: int) -> RewardWeights:
    """The weights of `longshort.reward`; its ramp must end within the run. Raises UserError otherwise."""
    reward = {**reward, "mu": dict(reward["mu"])}
    if reward["mu"].get("end_step") is None:
        reward["mu"]["end_step"] = total_steps
    end = reward["mu"]["end_step"]
    if end > total_steps:
        remedy = f"the run has {total_steps} steps; the ramp must end by then (null: at the last step)"
        raise UserError("longshort.reward.mu.end_step", end, remedy)
    return RewardWeights.from_config(reward)


def _pools(value: str) -> Pools:
    try:
        return Pools(value)
    except ValueError:
        raise UserError("longshort.pools", value, "use shared or separate") from None


def positive_seconds(value: Any, key: str) -> float:
    """`value`, if it is a duration. Raises UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise UserError(key, value, "must be a number of seconds above 0")
    return float(value)


def _keep(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError("longshort.keep_checkpoints", value, "must be a whole number from 1 on, or null for all")
    return value
