"""Judges answers: the grade of one, pass@k and maj@k of several to one problem, and how often a model reconsiders.

Correct is what `longshort_reward` says, the reward's own judgement. An answer has an "aha" when a sentence, line or
turn of what the model wrote begins with one of `MARKERS` (letter case does not matter, the marker ends at a word's
end). The rate is the share of answers with at least one. Prompts are not read. It counts words, not insight: a model
may reconsider without a marker and write one without reconsidering, so compare rates, and only of models that write
alike.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb

from longshort_reward import final_answer, match_answer
from longshort_reward.answer import ground_truth_text
from longshort_reward.plain import choice, leading_choice, normalise

from verl_longshort.base.files import Record
from verl_longshort.problems.reader import LETTERS, Problem

MARKERS: tuple[str, ...] = (
    *("wait", "hold on", "hmm", "hang on", "oops", "actually", "on second thought", "however, wait"),
    *("let me re-check", "let me recheck", "let me double-check", "let me double check"),
    *("let me check again", "let me verify again", "let me reconsider", "let me rethink"),
    *("let me re-examine", "let me try again", "let me start over", "i made a mistake", "i made an error"),
    *("that's not right", "that is not right", "that's wrong", "that is wrong"),
    *("this is wrong", "something is wrong", "but wait", "no, wait"),
)

# A sentence begins with the text, after a stop or an opening tag, and on a new line.
_BEGINNING = r"(?:\A|[.!?:;>)\]}]\s+|(?<=>)|\n)[\s\"'*_(]*"
_AHA = re.compile(rf"{_BEGINNING}(?:{'|'.join(map(re.escape, MARKERS))})(?!\w)", re.IGNORECASE)
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


def pass_at(k: int, *, samples: int, right: int) -> float:
    """The chance that one of `k` samples is correct, taken without replacement from `samples` of which `right`
    are: 1 - C(samples - right, k) / C(samples, k), the unbiased estimate of Chen et al., 2021 (2107.03374).

    Raises ValueError unless 1 <= k <= samples.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k is {k}; it must be 1 to the number of samples, {samples}")
    return 1 - comb(samples - right, k) / comb(samples, k)


def majority(records: Sequence[Record], *, timeout_s: float) -> float:
    """Whether most samples of one problem give the correct answer: 1 or 0, and 1/t when t answers share the
    first place and the correct one is among them, as if the tie were broken at random.

    All correct samples are one answer. Incorrect ones are the same answer when `match_answer` says so. An incorrect
    sample without a boxed answer has no vote.
    """
    right = sum(record["correct"] for record in records)
    answers = (record["answer"] or "" for record in records if not record["correct"])
    wrong = [answer for answer in answers if answer.strip()]
    # Comparing costs time, and mostly decides nothing.
    if right == 0 or right > len(wrong):
        return float(right > 0)
    sizes = _group_sizes(wrong, timeout_s)
    return 0.0 if max(sizes) > right else 1 / (1 + sizes.count(right))


def has_aha(turns: Iterable[str]) -> bool:
    """Whether one of the texts of an answer has an aha; see the module for the definition."""
    return any(_AHA.search(text.replace("\u2019", "'")) for text in turns)


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


def _group_sizes(answers: Sequence[str], timeout_s: float) -> list[int]:
    groups: list[list[str]] = []
    for answer in answers:
        group = next((group for group in groups if _same(answer, group[0], timeout_s)), None)
        if group is None:
            groups.append([answer])
        else:
            group.append(answer)
    return [len(group) for group in groups]


def _same(answer: str, other: str, timeout_s: float) -> bool:
    if answer == other:
        return True
    try:
        truth = ground_truth_text(other)
    except ValueError:  # too long to be compared by more than its characters
        return False
    return match_answer(rf"\boxed{{{answer}}}", truth, timeout_s=timeout_s)
