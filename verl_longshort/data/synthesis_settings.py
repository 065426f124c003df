"""The `longshort` block of `config/coldstart.yaml`; each key is documented there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from longshort_reward.compat import StrEnum
from longshort_reward.settings import NonNegativeInt, Remedy, Seconds, Settings
from pydantic import Field, Strict, model_validator

from verl_longshort.base.files import ModelPath
from verl_longshort.core.environment import Limits
from verl_longshort.llm.settings import LLMSettings


class Rewriting(StrEnum):
    """Who writes what the short role says."""

    LLM = "llm"
    LABELS = "labels"


class SynthesisSettings(Settings):
    """Everything that cold-start data depend on."""

    input: Path
    output_dir: Path
    rule: str | None
    rule_options: dict[str, Any]
    rewrite: Rewriting
    tokenizer: ModelPath | None
    limits: Annotated[Limits, Field(alias="environment")]
    val_percent: Annotated[float, Strict(), Field(ge=0, lt=100), Remedy("must be a number from 0 to below 100")]
    seed: NonNegativeInt
    answer_timeout_s: Seconds
    llm: LLMSettings | None
    """None where no model is asked."""

    @model_validator(mode="before")
    @classmethod
    def _without_unused_model(cls, block: Any) -> Any:
        if isinstance(block, Mapping) and block.get("rewrite") != Rewriting.LLM:
            return {**block, "llm": None}
        return block

    def for_card(self) -> dict[str, Any]:
        """What the data card says about how the data were made, as JSON values."""
        whole = self.val_percent.is_integer()
        return {
            "rule": self.rule or "marked in the input",
            "rule_options": self.rule_options,
            "rewrite": str(self.rewrite),
            "model": self.llm.model if self.llm else None,
            "limits": self.limits.model_dump(),
            "val_percent": int(self.val_percent) if whole else self.val_percent,
            "seed": self.seed,
        }
