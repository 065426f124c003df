"""The `longshort` block of `longshort weigh`; each key is documented in `config/weigh.yaml`."""

from pathlib import Path
from typing import Annotated, Any

from longshort_reward.compat import StrEnum
from longshort_reward.settings import NonNegativeInt, PositiveFloat, PositiveInt, Remedy, Seconds, SettingError
from pydantic import Field, Strict, model_validator
from typing_extensions import Self

from verl_longshort.base.dry_run import absolute
from verl_longshort.base.files import ModelPath, absolute_model, model_identity, sibling_path
from verl_longshort.data.rollouts import AnswerPrompt
from verl_longshort.engines.factory import EngineSettings

_DECIDES = (
    *("input", "model", "tokenizer", "limit", "samples", "mode", "confidence", "budget"),
    *("temperature", "top_p", "max_tokens", "seed", "system_prompt"),
)


class Sampling(StrEnum):
    """How many rollouts a prefix gets."""

    FIXED = "fixed"
    ADAPTIVE = "adaptive"


class WeighSettings(EngineSettings):
    """Everything `weigh` depends on."""

    input: str
    output: Path
    model: ModelPath
    tokenizer: str
    limit: PositiveInt | None
    samples: PositiveInt
    mode: Sampling
    confidence: Annotated[float, Strict(), Field(gt=0, lt=1), Remedy("must lie between 0 and 1")]
    budget: PositiveInt
    temperature: PositiveFloat
    top_p: Annotated[float, Strict(), Field(gt=0, le=1), Remedy("must be above 0 and at most 1")]
    max_tokens: PositiveInt
    seed: NonNegativeInt
    max_num_seqs: PositiveInt
    joining: AnswerPrompt
    system_prompt: str
    answer_timeout_s: Seconds
    rollout_timeout_s: Seconds

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

    def header(self) -> dict[str, Any]:
        """What records of two runs must have in common to belong together, as JSON values."""
        return {
            **{key: getattr(self, key) for key in _DECIDES},
            **self.engine_header(),
            "input": absolute(self.input),
            "model": model_identity(absolute_model(self.model)),
            "tokenizer": absolute_model(self.tokenizer),
            "joining": self.joining.model_dump(),
        }

    @model_validator(mode="before")
    @classmethod
    def _tokenizer_of_the_model(cls, block: Any) -> Any:
        return (
            {**block, "tokenizer": block.get("tokenizer") or block.get("model")} if isinstance(block, dict) else block
        )

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        if self.budget < self.samples and self.mode is Sampling.ADAPTIVE:
            remedy = f"must be at least longshort.samples ({self.samples}), which each prefix gets at first"
            raise SettingError("budget", self.budget, remedy)
        return self
