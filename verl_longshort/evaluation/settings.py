"""The `longshort` block of an evaluation, checked and typed; each key is documented in `config/eval.yaml`."""

from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt
from longshort_reward.compat import StrEnum
from longshort_reward.protocol import RolePrompts
from longshort_reward.settings import Remedy, SettingError, Settings
from pydantic import BeforeValidator, Field, Strict, field_validator, model_validator
from typing_extensions import Self

from verl_longshort.base.files import absolute_model, check_positions, model_identity, model_setting
from verl_longshort.config.pair import EnvironmentSettings, OfPair
from verl_longshort.core.environment import Limits
from verl_longshort.engines.factory import EngineSettings
from verl_longshort.llm.endpoint import renamed
from verl_longshort.llm.settings import EndpointSettings
from verl_longshort.problems.settings import ProblemSettings

_Text = Annotated[str, Field(min_length=1)]
_Count = Annotated[int, Strict(), Gt(0), Remedy("must be above 0")]
_Duration = Annotated[float, Strict(), Gt(0), Remedy("must be above 0")]


class Mode(StrEnum):
    """Who answers."""

    PAIR = "pair"
    LONG_COT = "long_cot"
    DIRECT = "direct"
    JOINT = "joint"
    PLAIN = "plain"
    EARLY_STOP = "early_stop"

    @property
    def model_roles(self) -> tuple[str, ...]:
        """Keys of `longshort.models` that this mode needs."""
        return ("long", "short") if self is Mode.PAIR else ("single",)

    @property
    def keeps_protocol(self) -> bool:
        """Whether a trajectory of the pair's form is written: without its end there is no answer."""
        return self in (Mode.PAIR, Mode.JOINT)


class ByRole(OfPair):
    """One text for each model that a mode may need."""

    single: str | None = None

    def given(self, roles: tuple[str, ...]) -> dict[str, str]:
        """Those of `roles` that are not null."""
        return {role: text for role in roles if (text := getattr(self, role)) is not None}


class EarlyStop(Settings):
    """The block `early_stop`: when a long chain of thought is cut."""

    boundaries: Annotated[tuple[_Text, ...], Field(min_length=1), Remedy("give a list of texts that end a thought")]
    agree: Annotated[int, Strict(), Ge(2), Remedy("set a whole number of 2 or more")]
    probe: Annotated[_Text, Remedy("give the text that makes the model answer at once")]
    probe_tokens: Annotated[int, Strict(), Ge(1), Remedy("set a whole number of 1 or more")]

    @field_validator("boundaries", mode="before")
    @classmethod
    def _list_of_texts(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) or not all(isinstance(text, str) and text for text in value):
            raise SettingError("", value, "give a list of texts that end a thought")
        return tuple(value)


class EvaluationSettings(EngineSettings, ProblemSettings):
    """Everything an evaluation depends on."""

    name: Annotated[str, BeforeValidator(str)]
    mode: Mode
    pair: str | None = None
    models: ByRole
    endpoint: EndpointSettings[ByRole]
    output_dir: Path
    samples: _Count
    temperature: Annotated[float, Strict(), Ge(0), Remedy("must be 0 (greedy) or more")]
    top_p: float
    seed: int
    max_num_seqs: _Count
    answer_timeout_s: _Duration
    rollout_timeout_s: _Duration
    environment: EnvironmentSettings
    system_prompt: str
    early_stop: EarlyStop

    @property
    def runs_here(self) -> bool:
        """Whether the models run in this process."""
        return not self.base_urls

    @property
    def base_urls(self) -> dict[str, str]:
        """The servers of the models that the mode needs; empty: they run in this process."""
        return self.endpoint.base_url.given(self.mode.model_roles)

    @property
    def model_paths(self) -> dict[str, str]:
        """Folder or name of each model that the mode needs."""
        return self.models.given(self.mode.model_roles)

    @property
    def engine_models(self) -> tuple[str, ...]:
        """The models that are loaded, in order: one that plays both roles only once."""
        return tuple(dict.fromkeys(map(absolute_model, self.model_paths.values())))

    @property
    def limits(self) -> Limits:
        """How far a trajectory may go."""
        return self.environment.limits

    @property
    def prompts(self) -> RolePrompts:
        """System prompts of a pair."""
        return self.environment.prompts.role_prompts

    @property
    def records_file(self) -> Path:
        """Where every trajectory is kept."""
        return self.output_dir / f"{self.name}.jsonl"

    @property
    def summary_file(self) -> Path:
        """Where the summary goes."""
        return self.output_dir / f"{self.name}.json"

    def tokenizer_path(self, role: str) -> str:
        """Folder or name of the tokenizer of a model behind an endpoint."""
        return getattr(self.endpoint.tokenizer, role) or self.model_paths[role]

    def header(self) -> dict[str, Any]:
        """What records of two runs must have in common to belong together, as JSON values."""
        models = {
            role: [path, self.base_urls[role]] if self.base_urls else model_identity(absolute_model(path))
            for role, path in self.model_paths.items()
        }
        own = ("name", "samples", "temperature", "top_p", "seed")
        prompts = vars(self.prompts) if self.mode is Mode.PAIR else {"single": self.system_prompt}
        return {
            **{key: getattr(self, key) for key in own},
            **self.problem_header(),
            **(self.engine_header() if self.runs_here else {"request_names": renamed(self.endpoint.request_names)}),
            "mode": str(self.mode),
            "models": models,
            "limits": vars(self.limits),
            "prompts": dict(prompts),
            **({"early_stop": self.early_stop.model_dump()} if self.mode is Mode.EARLY_STOP else {}),
        }

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        missing = [role for role in self.mode.model_roles if role not in self.base_urls]
        if self.base_urls and missing:
            remedy = f"is needed when longshort.endpoint.base_url.{next(iter(self.base_urls))} is given: all or none"
            raise SettingError(f"endpoint.base_url.{missing[0]}", None, remedy)
        for role in self.base_urls if self.mode is not Mode.PLAIN else ():
            key = f"endpoint.tokenizer.{role}"
            path = getattr(self.endpoint.tokenizer, role) or getattr(self.models, role)
            if path is None:
                raise SettingError(key, None, "give the folder or name of the model's tokenizer")
            model_setting(path, key)
        if self.base_urls and self.mode is Mode.EARLY_STOP:
            raise SettingError("mode", self.mode, "needs the model in this process, not behind an endpoint")
        for role in self.mode.model_roles:
            if role not in self.model_paths:
                remedy = f"the mode {self.mode} needs it: give a Hugging Face model folder, or the endpoint's name"
                raise SettingError(f"models.{role}", None, remedy)
            if not self.base_urls:
                adapters = self.engine_spec.merges_adapters
                model_setting(self.model_paths[role], f"models.{role}", adapters=adapters)
                # a pair's turn asks for less
                if self.mode is not Mode.PAIR:
                    check_positions(self.model_paths[role], self.limits.token_budget, key="environment.token_budget")
        if self.temperature == 0 and self.samples > 1:
            raise SettingError("samples", self.samples, "greedy answers are all the same: raise temperature")
        return self
