"""Grades the answer to a problem with `longshort_reward`, the reward's own judgement."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from longshort_reward import final_answer, match_answer
from longshort_reward.plain import choice, leading_choice, normalise

from verl_longshort.problems.reader import LETTERS, Problem

_LAYOUT = re.compile(r"[\s{}$\\]")


@dataclass(frozen=True, kw_only=True)
class Grade:
    """What a response answers, and whether that is correct."""

    answer: str | None
    r"""The content of the last `\boxed{}`; for an option its letter."""
    correct: bool


def grade(problem: Problem, text: str, *, timeout_s: float) -> Grade:
    """The grade of the response `text`; comparing one pair of answers takes `timeout_s` seconds at most.

    The answer to a multiple-choice problem is a letter or the text of an option. A text that equals several
    options is none of them.
    """
    answer = final_answer(text)
    if problem.options and answer is not None:
        chosen = _chosen(answer, problem.options, timeout_s)
        return Grade(answer=chosen or answer, correct=chosen == problem.ground_truth)
    return Grade(answer=answer, correct=match_answer(text, problem.ground_truth, timeout_s=timeout_s))


def _chosen(answer: str, options: tuple[str, ...], timeout_s: float) -> str | None:
    boxed = rf"\boxed{{{answer}}}"
    return (
        choice(answer)
        or _letter(normalise(answer) == normalise(option) for option in options)
        or _letter(_characters(answer) == _characters(option) for option in options)
        or leading_choice(answer)
        or _letter(match_answer(boxed, option, timeout_s=timeout_s) for option in options)
    )


def _characters(answer: str) -> str:
    """The answer without layout: options are prose with bits of LaTeX, or the other way round."""
    return _LAYOUT.sub("", normalise(answer)).casefold()


def _letter(matches: Iterable[bool]) -> str | None:
    """The letter of the only option that matches; None when none does, or several do."""
    found = [index for index, matching in enumerate(matches) if matching]
    return LETTERS[found[0]] if len(found) == 1 else None
