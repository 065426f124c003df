"""The `longshort` block of a server, checked and typed; each key is documented in `config/serve.yaml`."""

import ipaddress
from typing import Annotated

from annotated_types import Ge, Gt, Le
from longshort_reward.protocol import ROLES, Role, RolePrompts
from longshort_reward.settings import NonNegativeInt, PositiveInt, Remedy, Seconds, SettingError, Settings
from pydantic import AllowInfNan, Field, Strict, model_validator
from typing_extensions import Self

from verl_longshort.base.files import model_setting
from verl_longshort.config.pair import EnvironmentSettings, OfPair
from verl_longshort.core.environment import Limits
from verl_longshort.engines.factory import EngineSettings
from verl_longshort.llm.settings import EndpointSettings, api_key

_Price = Annotated[float | None, Strict(), Ge(0), AllowInfNan(False), Remedy("must be a number of 0 or more, or null")]


class SingleSettings(Settings):
    """The block `single`: the model that the page shows beside the pair."""

    base_url: str | None
    model: str | None
    api_key_env: str | None
    max_tokens: PositiveInt

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.base_url is None:
            return self
        if self.model is None:
            raise SettingError("model", None, "is needed with base_url: give the endpoint's name for the model")
        api_key(self.api_key_env)
        return self


class Prices(Settings):
    """The block `prices`: of a million generated tokens."""

    long: _Price = None
    short: _Price = None
    single: _Price = None


class ServeSettings(EngineSettings):
    """Everything a server depends on."""

    name: Annotated[str, Field(pattern=r"^[^:\s]+$"), Remedy("must be a word without a colon")]
    pair: str | None
    models: OfPair
    endpoint: EndpointSettings[OfPair]
    environment: EnvironmentSettings
    template: Annotated[str, Field(pattern=r"\{problem\}"), Remedy("must hold {problem}, for the user's message")]
    temperature: Annotated[float, Strict(), Ge(0), Remedy("must be 0 (greedy) or more")]
    top_p: Annotated[float, Strict(), Gt(0), Le(1), Remedy("must be above 0 and up to 1")]
    max_num_seqs: PositiveInt
    max_waiting: NonNegativeInt
    host: str
    port: Annotated[int, Strict(), Ge(0), Le(65535), Remedy("must be a port from 0 (any free one) to 65535")]
    api_key_env: str | None
    max_body_bytes: PositiveInt
    body_timeout_s: Seconds
    request_timeout_s: Seconds
    stop_timeout_s: Seconds
    single: SingleSettings
    prices: Prices

    @property
    def runs_here(self) -> bool:
        """Whether the models run in this process."""
        return self.endpoint.base_url == OfPair()

    @property
    def model_paths(self) -> dict[Role, str]:
        """Folder, or the endpoint's name, of each role's model."""
        return {role: str(self.models.of(role)) for role in ROLES}

    @property
    def limits(self) -> Limits:
        """How far an answer may go."""
        return self.environment.limits

    @property
    def prompts(self) -> RolePrompts:
        """System prompts of the roles."""
        return self.environment.prompts.role_prompts

    @property
    def api_key(self) -> str | None:
        """What clients must send."""
        return api_key(self.api_key_env)

    def tokenizer_path(self, role: Role) -> str:
        """Folder or name of the role's tokenizer."""
        return (None if self.runs_here else self.endpoint.tokenizer.of(role)) or self.model_paths[role]

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        for role in ROLES:
            model, url = self.models.of(role), self.endpoint.base_url.of(role)
            if model is None:
                remedy = "is needed: give longshort.pair, a model folder, or the endpoint's name for the model"
                raise SettingError(f"models.{role}", None, remedy)
            if self.runs_here:
                model_setting(model, f"models.{role}", adapters=self.engine_spec.merges_adapters)
                continue
            if url is None:
                remedy = f"is needed when longshort.endpoint.base_url.{role.partner} is given: all or none"
                raise SettingError(f"endpoint.base_url.{role}", None, remedy)
            model_setting(self.tokenizer_path(role), f"endpoint.tokenizer.{role}")
        return self

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if self.api_key_env is None and not _is_local(self.host):
            remedy = "others can reach it: name the environment variable with the key that clients must send"
            raise SettingError("api_key_env", None, f"longshort.host is {self.host}; {remedy}")
        if not api_key(self.api_key_env) and self.api_key_env is not None:
            raise SettingError("api_key_env", self.api_key_env, "the environment variable is empty: give it a key")
        return self


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
