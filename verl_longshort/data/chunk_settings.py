"""The `longshort` block of `config/chunk.yaml`; each key is documented there."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longshort_reward.settings import NonNegativeInt, SettingError, Settings
from pydantic import field_validator, model_validator

from verl_longshort.data.chunkers import CHUNKERS
from verl_longshort.llm.settings import LLMSettings


class ChunkSettings(Settings):
    """Which chains are cut, and how."""

    input: Path
    output: Path
    method: str
    """A key of `CHUNKERS`."""
    splitter: re.Pattern[str]
    markers: Mapping[str, Sequence[str]]
    seed: NonNegativeInt
    llm: LLMSettings | None
    """None where the method asks no model."""

    @model_validator(mode="before")
    @classmethod
    def _without_unused_model(cls, block: Any) -> Any:
        if isinstance(block, Mapping):
            spec = CHUNKERS.get(block.get("method", ""))
            return dict(block) if spec is not None and spec.asks_model else {**block, "llm": None}
        return block

    @field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        if method not in CHUNKERS:
            raise SettingError("", method, f"must be one of {', '.join(CHUNKERS)}")
        return method

    @field_validator("splitter", mode="before")
    @classmethod
    def _check_splitter(cls, splitter: Any) -> Any:
        try:
            return re.compile(splitter)
        except (re.error, TypeError) as error:
            raise SettingError("", splitter, f"is no regular expression: {error}") from error
