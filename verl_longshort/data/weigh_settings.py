"""The `longshort` block of `longshort weigh`, checked and typed; each key is documented in
`config/weigh.yaml`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_reward.compat import StrEnum
from longshort_reward.errors import UserError

from verl_longshort.base.files import check_model, model_identity, sibling_path
from verl_longshort.data.rollouts import Joining
from verl_longshort.engines.factory import EngineSettings


class Sampling(StrEnum):
    """How many rollouts a prefix gets."""

    FIXED = "fixed"
    ADAPTIVE = "adaptive"


_POSITIVE = (
    *("samples", "budget", "max_tokens", "max_num_seqs", "answer_timeout_s", "rollout_timeout_s"),
    *("temperature", "limit"),
)
_DECIDES = (
    *("input", "model", "tokenizer", "limit", "samples", "mode", "confidence", "budget"),
    *("temperature", "top_p", "max_tokens", "seed", "system_prompt"),
)


@dataclass(frozen=True, kw_only=True)
class WeighSettings:
    """Everything `weigh` depends on."""

    input: str
    output: Path
    model: str
    tokenizer: str
    limit: int | None
    samples: int
    mode: Sampling
    confidence: float
    budget: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    max_num_seqs: int
    joining: Joining
    system_prompt: str
    answer_timeout_s: float
    rollout_timeout_s: float
    engine: EngineSettings

    @property
    def journal(self) -> Path:
        """Where finished records are kept while the command runs."""
        return sibling_path(self.output, "journal")

    @property
    def rejects(self) -> Path:
        """Where the records go that cannot be weighed, with the reason."""
        return sibling_path(self.output, "rejects")

    @property
    def sampling(self) -> dict[str, Any]:
        """The engine's sampling keys that all rollouts have in common."""
        return {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}

    @classmethod
    def parse(cls, block: Mapping[str, Any]) -> "WeighSettings":
        """Check a block of plain containers. Raises UserError naming the key that cannot be used."""
        values = dict(block)
        values |= {
            "output": Path(values["output"]),
            "tokenizer": values["tokenizer"] or values["model"],
            "mode": _mode(values["mode"]),
            "joining": Joining(**{key: str(text) for key, text in values["joining"].items()}),
            "engine": EngineSettings.parse(
                {key: values.pop(key) for key in EngineSettings.model_fields}, where="longshort"
            ),
        }
        settings = cls(**values)
        settings._check()
        return settings

    def header(self) -> dict[str, Any]:
        """What records of two runs must have in common to belong together, as JSON values."""
        values = {key: getattr(self, key) for key in _DECIDES}
        return {
            **values,
            **self.engine.engine_header(),
            "mode": str(self.mode),
            "model": model_identity(self.model),
            "joining": vars(self.joining),
        }

    def _check(self) -> None:
        for key in _POSITIVE:
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise UserError(f"longshort.{key}", value, "must be above 0")
        if not 0 < self.confidence < 1:
            raise UserError("longshort.confidence", self.confidence, "must lie between 0 and 1")
        if not 0 < self.top_p <= 1:
            raise UserError("longshort.top_p", self.top_p, "must be above 0 and at most 1")
        if self.budget < self.samples and self.mode is Sampling.ADAPTIVE:
            remedy = f"must be at least longshort.samples ({self.samples}), which each prefix gets at first"
            raise UserError("longshort.budget", self.budget, remedy)
        check_model(self.model, key="longshort.model")


def _mode(value: str) -> Sampling:
    try:
        return Sampling(value)
    except ValueError:
        raise UserError("longshort.mode", value, f"must be one of {', '.join(Sampling)}") from None
