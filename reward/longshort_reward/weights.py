"""Weights of the reward's terms and how they change during training."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from longshort_reward.settings import NonNegativeInt, SettingError, Settings, Weight
from longshort_reward.terms import all_terms, find_term
from longshort_reward.terms.term import Term


class Ramp(Settings):
    """A weight that moves linearly from `start` to `end` between two trainer steps, constant outside."""

    start: Weight
    end: Weight
    begin_step: NonNegativeInt
    end_step: int

    @field_validator("end_step", mode="before")
    @classmethod
    def _ends_after_it_begins(cls, value: Any, info: ValidationInfo) -> Any:
        least = info.data.get("begin_step", 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SettingError("", value, f"must be a whole number from {least} on")
        return value

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
        """Read `{start, end, begin_step, end_step}`; all four must be there. Raises UserError."""
        return cls.parse(block, where)


class TermWeight(Ramp):
    """The weight of a further term: a ramp, or a number for one that stays the same."""

    @model_validator(mode="before")
    @classmethod
    def _constant(cls, value: Any) -> Any:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return {"start": value, "end": value, "begin_step": 0, "end_step": 0}
        return value


class RewardWeights(Settings):
    """Weights of `r = eta EM + lambda FM + mu(step) LM` (paper section 5), the rethink credit (ours) and terms of
    yours.
    """

    eta: Weight = 1.0
    """Of EM, the answer match."""
    lambda_: Weight = Field(default=0.1, alias="lambda")
    """Of FM, the format match; the key is `lambda` in a configuration."""
    mu: Ramp
    """Of LM, the length term: 0 at first, raised during training."""
    rethink: Weight = 0.0
    """Of the short policy's credit for asking again; 0 switches it off."""
    terms: Mapping[str, TermWeight] = Field(default_factory=dict)
    """Of further terms, by name or dotted path; see `longshort_reward.terms`."""

    @field_validator("terms")
    @classmethod
    def _exist(cls, value: Mapping[str, TermWeight]) -> Mapping[str, TermWeight]:
        for name in value:
            find_term(name, "longshort.reward.terms")
        return value

    @classmethod
    def from_config(cls, block: Mapping[str, Any], *, where: str = "longshort.reward") -> "RewardWeights":
        """Read `{eta, lambda, mu: {...}, rethink, terms}`; `mu` must be there, the others have defaults.

        Raises:
            UserError: a key is unknown or missing, or a value cannot be used; it names the key under `where`.
        """
        return cls.parse(block, where)

    def weighted(self, step: int) -> Iterator[tuple[Term, float]]:
        """The terms in the order in which they are added up, each with its weight at a trainer step."""
        built_in = {"em": self.eta, "fm": self.lambda_, "lm": self.mu.at(step), "rethink": self.rethink}
        terms = all_terms()
        yield from ((terms[name], weight) for name, weight in built_in.items())
        for name, weight in sorted(self.terms.items()):
            yield find_term(name, "longshort.reward.terms"), weight.at(step)
