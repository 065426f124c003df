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

from longshort_reward.errors import UserError

from verl_longshort.core.role_view import render_prompt
from verl_longshort.core.single_model import opening_ids
from verl_longshort.engines.tokenizers import load_tokenizer

_BATCH = 2000
_SLACK = 32
"""Tokens by which the count of a prompt may differ from the sum of its parts' counts."""
_LINE_S = 5.0


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
    protocol: bool = True
    """The model writes the protocol's turns, so its tokenizer must keep the tags apart."""

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
        """Tokens of the prompt of a problem. Raises UserError when the tokenizer cannot write it."""
        try:
            prompt = render_prompt(self.tokenizer, self.system, problem)
        # a plain one of the tokenizers library, where a word is unknown and there is no token for that
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(self.key, self.path, f"cannot write the problem {problem[:80]!r} ({reason})") from error
        return len(prompt) + len(opening_ids(self.tokenizer, prompt, self.opening))

    def overlong(self, problems: Sequence[str], limit: int, *, what: str) -> dict[int, int]:
        """Position -> tokens of the prompts that have more than `limit` tokens.

        Most are seen to be short without tokenising them: no tokenizer makes more tokens of a text than it has bytes.
        `what` is shown on stderr with the share that is done when it takes long.
        """
        if not problems:
            return {}
        first = problems[0]
        system = [{"role": "system", "content": self.system}] if self.system else []
        chat = [*system, {"role": "user", "content": first}]
        shown = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        # a template that writes the problem more than once leaves nothing to be seen from its length
        room = limit - self.tokens(first) - _SLACK if shown.count(first) == 1 else -1
        doubtful = [index for index, problem in enumerate(problems) if _bytes(problem) > room]
        found: dict[int, int] = {}
        said = time.monotonic()
        for begin in range(0, len(doubtful), _BATCH):
            part = doubtful[begin : begin + _BATCH]
            for index, alone in zip(part, self._alone([problems[index] for index in part]), strict=True):
                if alone > room and (tokens := self.tokens(problems[index])) > limit:
                    found[index] = tokens
            if time.monotonic() - said > _LINE_S:
                said = time.monotonic()
                print(f"{what}: {(begin + len(part)) / len(doubtful):.0%}", file=sys.stderr, flush=True)
        return found

    def _alone(self, problems: list[str]) -> list[int]:
        """Tokens of each problem without its prompt."""
        try:
            return [len(ids) for ids in self.tokenizer(problems, add_special_tokens=False)["input_ids"]]
        except Exception:
            # names the problem
            return [self.tokens(problem) for problem in problems]


def makers_of(config: Mapping[str, Any]) -> list[PromptMaker]:
    """Those that a configuration carries for the data set."""
    return [PromptMaker(**one) for one in config["prompt_makers"]]


def _bytes(text: str) -> int:
    """Bytes of a text at most, also after a tokenizer has taken its characters apart."""
    return len(text) if text.isascii() else len(unicodedata.normalize("NFKD", text).encode("utf-8", "replace"))
