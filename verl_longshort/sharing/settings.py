"""The `longshort` block of an export, checked and typed; each key is documented in `config/export.yaml`."""

from pathlib import Path
from typing import Annotated, Any

from longshort_reward.protocol import ROLES
from longshort_reward.settings import Remedy, SettingError, Settings
from pydantic import Strict, field_validator, model_validator
from typing_extensions import Self

from verl_longshort.base.pair_file import Sampling
from verl_longshort.config.pair import OfPair, PromptSettings

_Limit = Annotated[int, Strict()] | None


class GivenEnvironment(Settings):
    """What is given of the environment; the rest is what the run recorded."""

    max_turns: _Limit = None
    long_turn_tokens: _Limit = None
    short_turn_tokens: _Limit = None
    token_budget: _Limit = None
    prompts: PromptSettings = PromptSettings()


class ExportSettings(Settings):
    """Everything that an export depends on."""

    run: Path | None
    checkpoint: int | str
    models: OfPair
    output_dir: Path
    name: str | None
    environment: GivenEnvironment
    template: str
    sampling: Sampling
    evaluations: tuple[Path, ...] | None
    license: str | None
    language: tuple[str, ...]
    datasets: tuple[str, ...]
    trust_remote_code: Annotated[bool, Strict(), Remedy("must be true or false")]

    @property
    def title(self) -> str:
        """The pair's name."""
        return self.name or self.output_dir.expanduser().absolute().name

    @field_validator("checkpoint")
    @classmethod
    def _step_or_word(cls, value: int | str) -> int | str:
        if value not in ("best", "latest") and not (isinstance(value, int) and value >= 0):
            raise SettingError("", value, "must be best, latest or the number of a step")
        return value

    @field_validator("evaluations", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("template")
    @classmethod
    def _has_place(cls, template: str) -> str:
        if "{problem}" not in template:
            raise SettingError("", template, "must hold {problem}, the place of the problem")
        return template

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        for role in ROLES:
            model = self.models.of(role)
            if self.run is not None and model is not None:
                raise SettingError(f"models.{role}", model, "longshort.run gives the models: leave one of them out")
            if self.run is None and model is None:
                raise SettingError(f"models.{role}", None, "is needed where longshort.run is not given")
        return self
