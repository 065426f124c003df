"""Weights of the reward terms and how they change during training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longshort_reward.checks import check_keys, number, whole


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A weight that moves linearly from `start` to `end` between two trainer steps, constant outside."""

    start: float
    end: float
    begin_step: int
    end_step: int

    def __post_init__(self) -> None:
        for key in ("start", "end"):
            number(getattr(self, key), key)
        whole(self.begin_step, "begin_step")
        whole(self.end_step, "end_step", least=self.begin_step)

    def at(self, step: int) -> float:
        """The weight at a trainer step."""
        if step >= self.end_step:
            return self.end
        if step <= self.begin_step:
            return self.start
        done = (step - self.begin_step) / (self.end_step - self.begin_step)
        return self.start + (self.end - self.start) * done

    @classmethod
    def from_config(cls, block: Mapping[str, Any], *, where: str = "longshort.reward.mu") -> "Ramp":
        """Read `{start, end, begin_step, end_step}`; all four must be there.

        Raises:
            UserError: a key is unknown or missing, or a value cannot be used; it names the key under `where`.
        """
        keys = ("start", "end", "begin_step", "end_step")
        check_keys(block, where, known=keys, required=keys)
        begin = whole(block["begin_step"], f"{where}.begin_step")
        return cls(
            start=number(block["start"], f"{where}.start"),
            end=number(block["end"], f"{where}.end"),
            begin_step=begin,
            end_step=whole(block["end_step"], f"{where}.end_step", least=begin),
        )


@dataclass(frozen=True, kw_only=True)
class RewardWeights:
    """Weights of `r = eta EM + lambda FM + mu(step) LM` (paper section 5) and the rethink credit (ours)."""

    eta: float = 1.0
    """Weight of EM, the answer match."""
    lambda_: float = 0.1
    """Weight of FM, the format match; the key is `lambda` in a configuration."""
    mu: Ramp
    """Weight of LM, the length term: 0 at first, raised during training."""
    rethink: float = 0.0
    """Weight of the short policy's credit for asking again; 0 switches it off."""

    def __post_init__(self) -> None:
        for key in ("eta", "lambda_", "rethink"):
            number(getattr(self, key), key)

    @classmethod
    def from_config(cls, block: Mapping[str, Any], *, where: str = "longshort.reward") -> "RewardWeights":
        """Read `{eta, lambda, mu: {...}, rethink}`; `mu` must be there, the others have defaults.

        Raises:
            UserError: a key is unknown or missing, or a value cannot be used; it names the key under `where`.
        """
        check_keys(block, where, known=("eta", "lambda", "mu", "rethink"), required=("mu",))
        given = {key: number(block[key], f"{where}.{key}") for key in ("eta", "lambda", "rethink") if key in block}
        return cls(
            eta=given.get("eta", cls.eta),
            lambda_=given.get("lambda", cls.lambda_),
            rethink=given.get("rethink", cls.rethink),
            mu=Ramp.from_config(block["mu"], where=f"{where}.mu"),
        )
