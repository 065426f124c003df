"""The `llm` block of a configuration, the client that it asks for, and what its model requires.

Each key is documented in `config/llm/default.yaml`.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from longshort_reward.settings import PositiveInt, Remedy, Seconds, SettingError, Settings
from pydantic import Field, Strict, model_validator
from typing_extensions import Self

from verl_longshort.base.files import check_positions, model_identity, model_setting
from verl_longshort.base.rejected import HasId, Rejected, work_on_all
from verl_longshort.base.requirements import EngineUse, GenerationWork, Product, Requirements
from verl_longshort.config.pair import OfPair
from verl_longshort.engines.factory import EngineSettings, generating, local_engine, open_engine
from verl_longshort.llm.client import ChatSampling, LLMClient
from verl_longshort.llm.task_client import ResponseCache, TaskClient

ENDPOINT = "endpoint"
"""The engine of a model behind one, in a plan."""
RecordT = TypeVar("RecordT", bound=HasId)
Result = TypeVar("Result")
_Count = Annotated[int, Strict(), Field(ge=1), Remedy("must be a whole number above 0")]
_Finite = Field(allow_inf_nan=False)


class RequestNames(Settings):
    """What an endpoint calls the parameters of a request; None leaves one out (`config/request_names/default.yaml`)."""

    temperature: str | None = "temperature"
    top_p: str | None = "top_p"
    max_tokens: str | None = "max_tokens"
    n: str | None = "n"
    seed: str | None = "seed"
    stop: str | None = "stop"
    include_stop_str_in_output: str | None = "include_stop_str_in_output"


Texts = TypeVar("Texts", bound=OfPair)


class EndpointSettings(Settings, Generic[Texts]):
    """The block `endpoint` of a command that asks a pair: models behind OpenAI-compatible servers.

    `Texts` says for which models there may be one.
    """

    base_url: Texts
    tokenizer: Texts
    api_key_env: str | None = None
    timeout_s: Seconds
    attempts: PositiveInt
    request_names: RequestNames = RequestNames()

    @model_validator(mode="after")
    def _key_exists(self) -> Self:
        if any(url is not None for url in vars(self.base_url).values()):
            api_key(self.api_key_env)
        return self


class LLMSettings(EngineSettings):
    """Which model is asked, and how. A command's settings hold it as `llm: LLMSettings`.

    Seeds come from the command's own `seed`, so `client`, `sampling` and `work_with_model` are given it.
    """

    model: Annotated[
        str,
        Field(min_length=1),
        Remedy("is required: give a Hugging Face model folder, or with base_url the endpoint's name for it"),
    ]
    base_url: str | None = None
    """None: the model is a folder and runs in this process."""
    api_key_env: str | None = None
    request_names: RequestNames = RequestNames()
    temperature: Annotated[float, Strict(), Field(ge=0), _Finite, Remedy("give 0 for greedy or a positive number")] = (
        0.1
    )
    top_p: Annotated[float, Strict(), Field(gt=0, le=1), Remedy("give a number above 0 and up to 1")] = 1.0
    max_tokens: PositiveInt
    concurrency: _Count
    timeout_s: Annotated[float, Strict(), Field(gt=0), _Finite, Remedy("must be a number above 0")]
    request_attempts: _Count
    attempts: _Count
    """How often a record's task is given to the model until a reply can be used."""

    @property
    def runs_here(self) -> bool:
        """Whether the model runs in this process."""
        return self.base_url is None

    @property
    def api_key(self) -> str | None:
        """The endpoint's key."""
        return None if self.runs_here else api_key(self.api_key_env)

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.runs_here:
            model_setting(self.model, "model")
            check_positions(self.model, self.max_tokens, key="max_tokens")
        else:
            api_key(self.api_key_env)
        return self

    def sampling(self, seed: int) -> ChatSampling:
        """How replies are sampled."""
        return ChatSampling(max_tokens=self.max_tokens, temperature=self.temperature, top_p=self.top_p, seed=seed)

    def client(self, seed: int) -> LLMClient:
        """The client; call it in the event loop that will use it. An in-process model is loaded here."""
        if self.base_url is not None:
            from verl_longshort.llm.endpoint import EndpointClient

            return EndpointClient(
                self.base_url,
                model=self.model,
                api_key=self.api_key,
                concurrency=self.concurrency,
                timeout_s=self.timeout_s,
                attempts=self.request_attempts,
                names=dict(self.request_names),
            )
        from verl_longshort.llm.in_process import EngineClient

        closing = ExitStack()
        tokenizer, engine = open_engine(self.model, self, max_num_seqs=self.concurrency, seed=seed, engines=closing)
        return EngineClient(
            tokenizer,
            engine.generate,
            model=model_identity(self.model),
            concurrency=self.concurrency,
            timeout_s=self.timeout_s,
            closing=closing,
        )


def work_with_model(
    records: Sequence[RecordT],
    work: Callable[[TaskClient | None], Callable[[RecordT], Coroutine[Any, Any, Result]]],
    settings: LLMSettings | None,
    *,
    replies: Path,
    seed: int,
    doing: str,
) -> tuple[list[Result], list[Rejected], int]:
    """`work_on_all` with a language model: results, what was rejected, and how many requests were new.

    `work` is given a task client, whose replies are kept in the file `replies`, or None without `settings`. An
    in-process model is loaded here.
    """

    async def work_on_records() -> tuple[list[Result], list[Rejected], int]:
        if settings is None:
            return *await work_on_all(records, work(None), doing=doing), 0
        with ResponseCache(replies) as cache:
            client = settings.client(seed)
            try:
                sampling = settings.sampling(seed)
                asker = TaskClient(client=client, cache=cache, sampling=sampling, attempts=settings.attempts)
                return *await work_on_all(records, work(asker), doing=doing), cache.asked
            finally:
                await client.aclose()

    return asyncio.run(work_on_records())


def asked_model(settings: LLMSettings) -> EngineUse:
    """The model: in the command's own process, or behind an endpoint, which needs no GPU of ours."""
    if settings.runs_here:
        return local_engine(settings.model, settings, max_num_seqs=settings.concurrency, new_tokens=settings.max_tokens)
    return EngineUse(model=settings.model, name=ENDPOINT, max_num_seqs=settings.concurrency)


def api_key(variable: str | None) -> str | None:
    """The endpoint's key in an environment variable that the key `api_key_env` of a block names.

    Raises SettingError for that key when there is no such variable.
    """
    if variable is not None and variable not in os.environ:
        remedy = "no such environment variable: set it to the endpoint's key (null: no key is sent)"
        raise SettingError("api_key_env", variable, remedy)
    return None if variable is None else os.environ[variable]


def asking(command: str, model: LLMSettings | None, records: int | None, products: Sequence[Product]) -> Requirements:
    """Of a command that asks a language model, if one is configured, once about each record."""
    if model is None:
        return Requirements(command=command, products=tuple(products))
    work = GenerationWork(engines=(asked_model(model),), records=records, new_tokens=model.max_tokens)
    return generating(command, work, products)
