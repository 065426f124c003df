"""What an answer may spend, as a person says it."""

from longshort_reward.errors import UserError

from verl_longshort.core.environment import Limits
from verl_longshort.serve.effort import UnknownWordError, effort_options
from verl_longshort.serve.pair import AnswerOptions

KEY = "longshort.effort"
HELP = "think (as trained), answer (the short model begins), turns=4, tokens=512, or several of them"


def options_of(effort: str, limits: Limits, *, key: str = KEY) -> AnswerOptions:
    """The options that `effort` stands for. Raises UserError for a word that is none, and for more than `limits`."""
    try:
        given = effort_options(effort.split())
    except UnknownWordError as error:
        raise UserError(key, error.word, f"must be {HELP}") from None
    for name, most in (("turns", limits.max_turns), ("tokens", limits.token_budget)):
        wanted = given.get(f"max_{name}")
        if wanted is not None and not 2 <= wanted <= most:
            raise UserError(key, f"{name}={wanted}", f"give a number from 2 (a turn each) to {most}")
    return AnswerOptions(**given)
