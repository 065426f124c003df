"""The `longshort` block of `config/coldstart.yaml`, checked and typed; each key is documented there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_reward.compat import StrEnum
from longshort_reward.errors import UserError

from verl_longshort.base.files import check_model
from verl_longshort.config.pair import check_keys, parse_limits
from verl_longshort.core.environment import Limits
from verl_longshort.llm.settings import LLMSettings

_KEYS = (
    *("input", "output_dir", "rule", "rule_options", "rewrite", "tokenizer", "environment"),
    *("val_percent", "seed", "answer_timeout_s", "llm"),
)


class Rewriting(StrEnum):
    """Who writes what the short role says."""

    LLM = "llm"
    LABELS = "labels"


@dataclass(frozen=True, kw_only=True)
class SynthesisSettings:
    """Everything that cold-start data depend on."""

    input: Path
    output_dir: Path
    rule: str | None
    rule_options: Mapping[str, Any]
    rewrite: Rewriting
    tokenizer: str | None
    limits: Limits
    val_percent: float
    seed: int
    answer_timeout_s: float
    llm: LLMSettings | None

    @classmethod
    def parse(cls, block: Mapping[str, Any]) -> "SynthesisSettings":
        """Check a block of plain containers. Raises UserError naming the key that cannot be used."""
        check_keys(block, "longshort", _KEYS)
        rewrite = _rewriting(block["rewrite"])
        if block["tokenizer"] is not None:
            check_model(block["tokenizer"], key="longshort.tokenizer")
        settings = cls(
            input=Path(block["input"]),
            output_dir=Path(block["output_dir"]),
            rewrite=rewrite,
            limits=parse_limits(block["environment"]),
            llm=LLMSettings.parse(block["llm"], "longshort.llm") if rewrite is Rewriting.LLM else None,
            **{key: block[key] for key in ("rule", "rule_options", "tokenizer", "val_percent", "seed")},
            answer_timeout_s=block["answer_timeout_s"],
        )
        settings._check_numbers()
        return settings

    def for_card(self) -> dict[str, Any]:
        """What the data card says about how the data were made, as JSON values."""
        return {
            "rule": self.rule or "marked in the input",
            "rule_options": dict(self.rule_options),
            "rewrite": str(self.rewrite),
            "model": self.llm.model if self.llm else None,
            "limits": vars(self.limits).copy(),
            "val_percent": self.val_percent,
            "seed": self.seed,
        }

    def _check_numbers(self) -> None:
        for key, holds, remedy in (
            ("val_percent", lambda value: 0 <= value < 100, "must be a number from 0 to below 100"),
            ("answer_timeout_s", lambda value: value > 0, "must be a number of seconds above 0"),
            ("seed", lambda value: value >= 0, "must be a whole number from 0 on"),
        ):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
                raise UserError(f"longshort.{key}", value, remedy)


def _rewriting(value: str) -> Rewriting:
    try:
        return Rewriting(value)
    except ValueError:
        raise UserError("longshort.rewrite", value, f"must be one of {', '.join(Rewriting)}") from None
