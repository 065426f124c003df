"""What an answer may spend, as a person says it."""

from typing import Any

from longshort_reward.errors import UserError

from verl_longshort.core.environment import Limits
from verl_longshort.serve.pair import AnswerOptions

KEY = "longshort.effort"
HELP = "think (as trained), answer (the short model begins), turns=4, tokens=512, or several of them"


def options_of(effort: str, limits: Limits, *, key: str = KEY) -> AnswerOptions:
    """The options that `effort` stands for. Raises UserError for a word that is none, and for more than `limits`."""
    given: dict[str, Any] = {}
    for word in effort.split():
        name, _, number = word.partition("=")
        if word in ("think", "answer"):
            given["think_first"] = word == "think"
        elif name in ("turns", "tokens") and number.isascii() and number.isdecimal():
            most = limits.max_turns if name == "turns" else limits.token_budget
            if not 2 <= int(number) <= most:
                raise UserError(key, word, f"give a number from 2 (a turn each) to {most}")
            given[f"max_{name}"] = int(number)
        else:
            raise UserError(key, word, f"must be {HELP}")
    return AnswerOptions(**given)
