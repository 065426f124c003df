"""The `endpoint` block of `config/eval.yaml`: models that answer behind OpenAI-compatible servers."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longshort_reward.checks import whole
from longshort_reward.errors import UserError

from verl_longshort.base.files import check_model
from verl_longshort.config.pair import check_keys, positive_seconds

KEY = "longshort.endpoint"
_SPEAKERS = ("long", "short", "single")


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """Where the models are, and how they are asked."""

    base_urls: Mapping[str, str]
    """By speaker; empty: the models run in this process."""
    tokenizers: Mapping[str, str]
    """By speaker, for those that are given token ids."""
    api_key: str | None
    timeout_s: float
    attempts: int

    @classmethod
    def parse(
        cls, block: Mapping[str, Any], models: Mapping[str, Any], speakers: Sequence[str], *, in_chat: bool
    ) -> "EndpointSettings":
        """Check the block for a mode with these `speakers`; `in_chat`: the server renders the prompts.

        Raises UserError naming the key that cannot be used.
        """
        check_keys(block, KEY, ("base_url", "tokenizer", "api_key_env", "timeout_s", "attempts"))
        for part in ("base_url", "tokenizer"):
            check_keys(block[part], f"{KEY}.{part}", _SPEAKERS)
        positive_seconds(block["timeout_s"], f"{KEY}.timeout_s")
        whole(block["attempts"], f"{KEY}.attempts", least=1)
        base_urls = _base_urls(block["base_url"], speakers)
        return cls(
            base_urls=base_urls,
            tokenizers={} if in_chat else _tokenizers(block["tokenizer"], models, base_urls),
            api_key=_api_key(block["api_key_env"]) if base_urls else None,
            timeout_s=block["timeout_s"],
            attempts=block["attempts"],
        )


def _base_urls(given: Mapping[str, str | None], speakers: Sequence[str]) -> dict[str, str]:
    found = {speaker: url for speaker in speakers if (url := given[speaker]) is not None}
    missing = [speaker for speaker in speakers if speaker not in found]
    if found and missing:
        remedy = f"is needed when {KEY}.base_url.{next(iter(found))} is given: all speakers or none"
        raise UserError(f"{KEY}.base_url.{missing[0]}", None, remedy)
    return found


def _tokenizers(
    given: Mapping[str, str | None], models: Mapping[str, Any], base_urls: Mapping[str, str]
) -> dict[str, str]:
    found = {}
    for speaker in base_urls:
        key = f"{KEY}.tokenizer.{speaker}"
        name = given[speaker] or models[speaker]
        if name is None:
            raise UserError(key, None, "give the folder or name of the model's tokenizer")
        check_model(name, key=key)
        found[speaker] = name
    return found


def _api_key(name: str | None) -> str | None:
    if name is not None and name not in os.environ:
        remedy = "no such environment variable: set it to the endpoint's key (null: no key is sent)"
        raise UserError(f"{KEY}.api_key_env", name, remedy)
    return None if name is None else os.environ[name]
