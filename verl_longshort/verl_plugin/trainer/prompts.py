"""Prompts as the models of a run will see them, and the problems whose prompt is too long. Imports no verl.

A prompt is made by each model's own tokenizer and chat template, with that model's system message; verl's own count
knows neither the system messages nor the second tokenizer.
"""

import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from verl_longshort.core.role_view import render_prompt
from verl_longshort.core.single_model import opening_ids
from verl_longshort.engines.tokenizers import load_tokenizer

_BATCH = 2000
_SLACK = 32
"""Tokens by which the count of a prompt may differ from the sum of its parts' counts."""
_LINE_S = 5.0
_MARK = "\u2603"


@dataclass(frozen=True, kw_only=True)
class PromptMaker:
    """How the prompts of one model are made; plain values, so that it can travel in a configuration."""

    role: str
    """For messages: long, short, or model."""
    key: str
    """Setting that names the model."""
    path: str
    """Folder or name of the tokenizer."""
    trust_remote_code: bool = False
    chat_template: str | None = None
    """Takes the place of the tokenizer's own."""
    system: str = ""
    opening: str = ""
    """A tag that is written for the model behind the prompt."""

    @cached_property
    def tokenizer(self) -> Any:
        """Raises UserError when it cannot be loaded."""
        return load_tokenizer(
            self.path,
            key=self.key,
            trust_remote_code=self.trust_remote_code,
            chat_template=self.chat_template,
            files_key=self.key.replace(".path", ".trust_remote_code"),
        )

    def tokens(self, problem: str) -> int:
        """Tokens of the prompt of a problem."""
        prompt = render_prompt(self.tokenizer, self.system, problem)
        return len(prompt) + len(opening_ids(self.tokenizer, prompt, self.opening))

    def overlong(self, problems: Sequence[str], limit: int, *, what: str) -> dict[int, int]:
        """Position -> tokens of the prompts that have more than `limit` tokens.

        Most are seen to be short without tokenising them: no tokenizer makes more tokens of a text than it has bytes.
        `what` is shown on stderr with the share that is done when it takes long.
        """
        shown = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": _MARK}], add_generation_prompt=True, tokenize=False
        )
        # a template that writes the problem more than once leaves nothing to be seen from its length
        room = limit - self.tokens(_MARK) - _SLACK if shown.count(_MARK) == 1 else -1
        doubtful = [index for index, problem in enumerate(problems) if _bytes(problem) > room]
        found: dict[int, int] = {}
        said = time.monotonic()
        for first in range(0, len(doubtful), _BATCH):
            part = doubtful[first : first + _BATCH]
            alone = self.tokenizer([problems[index] for index in part], add_special_tokens=False)["input_ids"]
            for index, ids in zip(part, alone, strict=True):
                if len(ids) > room and (tokens := self.tokens(problems[index])) > limit:
                    found[index] = tokens
            if time.monotonic() - said > _LINE_S:
                said = time.monotonic()
                print(f"{what}: {(first + len(part)) / len(doubtful):.0%}", file=sys.stderr, flush=True)
        return found


def makers_of(config: Mapping[str, Any]) -> list[PromptMaker]:
    """Those that a configuration carries for the data set."""
    return [PromptMaker(**one) for one in config["prompt_makers"]]


def _bytes(text: str) -> int:
    """Bytes of a text at most, also after a tokenizer has taken its characters apart."""
    return len(text) if text.isascii() else len(unicodedata.normalize("NFKD", text).encode("utf-8", "replace"))
