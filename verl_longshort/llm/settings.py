"""The `longshort.llm` block of a configuration, checked, and the client that it asks for.

Each key is documented in `config/llm/default.yaml`.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError

from verl_longshort.base.files import check_model, model_identity
from verl_longshort.config.pair import check_keys
from verl_longshort.engines.factory import KEYS as ENGINE_KEYS
from verl_longshort.engines.factory import EngineSettings, open_engine
from verl_longshort.llm.asking import Asker
from verl_longshort.llm.client import LLMClient, Sampling
from verl_longshort.llm.memory import ReplyMemory

_KEYS = (
    *("model", "base_url", "api_key_env", "temperature", "top_p", "max_tokens"),
    *("concurrency", "timeout_s", "request_attempts", "attempts"),
    *ENGINE_KEYS,
)
_NUMBERS: Mapping[str, tuple[type, ...]] = {
    "concurrency": (int,),
    "timeout_s": (int, float),
    "request_attempts": (int,),
    "attempts": (int,),
}


@dataclass(frozen=True, kw_only=True)
class LLMSettings:
    """Which model is asked, and how."""

    model: str
    base_url: str | None
    """None: the model is a folder and runs in this process."""
    api_key: str | None
    sampling: Sampling
    concurrency: int
    timeout_s: float
    request_attempts: int
    engine: EngineSettings | None
    """Of a model in this process; None: an endpoint is asked."""
    attempts: int
    """How often a record's task is given to the model until a reply can be used."""

    @classmethod
    def parse(cls, block: Mapping[str, Any], *, seed: int) -> "LLMSettings":
        """Check a block of plain containers. Raises UserError naming the key that cannot be used."""
        check_keys(block, "longshort.llm", _KEYS)
        for key, kinds in _NUMBERS.items():
            value = block[key]
            if isinstance(value, bool) or not isinstance(value, kinds) or block[key] <= 0:
                raise UserError(f"longshort.llm.{key}", value, f"must be a {_name(kinds)} above 0")
        return cls(
            model=_model(block),
            base_url=block["base_url"],
            api_key=_api_key(block),
            sampling=_sampling(block, seed),
            # what an endpoint runs on is its own affair, and this machine may have no GPU at all
            engine=None if block["base_url"] else EngineSettings.parse(block, where="longshort.llm"),
            **{key: block[key] for key in _NUMBERS},
        )

    def client(self) -> LLMClient:
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
            )
        return self._in_process()

    def _in_process(self) -> LLMClient:
        from verl_longshort.llm.in_process import EngineClient

        assert self.engine is not None
        closing = ExitStack()
        tokenizer, engine = open_engine(
            self.model,
            self.engine,
            max_num_seqs=self.concurrency,
            seed=self.sampling.seed,
            engines=closing,
        )
        return EngineClient(
            tokenizer,
            engine.generate,
            model=model_identity(self.model),
            concurrency=self.concurrency,
            timeout_s=self.timeout_s,
            closing=closing,
        )


@asynccontextmanager
async def open_asker(settings: LLMSettings, replies: Path) -> AsyncIterator[Asker]:
    """An asker whose replies are kept in the file `replies`; loads an in-process model."""
    with ReplyMemory(replies) as memory:
        client = settings.client()
        try:
            yield Asker(client=client, memory=memory, sampling=settings.sampling, attempts=settings.attempts)
        finally:
            await client.aclose()


def _name(kinds: tuple[type, ...]) -> str:
    return "number" if float in kinds else "whole number"


def _model(block: Mapping[str, Any]) -> str:
    model = block["model"]
    if not model:
        remedy = "is required: give a Hugging Face model folder, or with base_url the endpoint's name for it"
        raise UserError("longshort.llm.model", model, remedy)
    if block["base_url"] is None:
        check_model(model, key="longshort.llm.model")
    return str(model)


def _api_key(block: Mapping[str, Any]) -> str | None:
    name = block["api_key_env"]
    if name is None or block["base_url"] is None:
        return None
    if name not in os.environ:
        remedy = "no such environment variable: set it to the endpoint's key (null: no key is sent)"
        raise UserError("longshort.llm.api_key_env", name, remedy)
    return os.environ[name]


def _sampling(block: Mapping[str, Any], seed: int) -> Sampling:
    try:
        return Sampling(
            max_tokens=block["max_tokens"], temperature=block["temperature"], top_p=block["top_p"], seed=seed
        )
    except (TypeError, ValueError) as error:
        raise UserError("longshort.llm", dict(block), str(error)) from error
