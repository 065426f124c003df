"""EM, the answer match: finds the final answer of a text and compares it with the ground truth.

Plain cases are decided here (`plain`), the rest by math-verify in a process of its own (`grader_process`,
`grader_pool`), so the time limit holds in any thread and against any computation.
"""

import logging
import math
import numbers
import re
import threading
from collections import Counter
from decimal import Decimal
from functools import lru_cache
from typing import Any

from longshort_reward import plain
from longshort_reward.grader_pool import GRADERS, Verdict
from longshort_reward.protocol import THINK_CLOSE, Closing, Role, parse_trajectory

logger = logging.getLogger(__name__)

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_LONGEST = 2000
_TAIL = 1500
_lock = threading.Lock()
_failures: Counter[Verdict] = Counter()


def match_answer(text: str, ground_truth: str | int | float, *, timeout_s: float = 5.0) -> bool:
    r"""Whether the final answer of `text` equals `ground_truth`.

    The final answer is the content of the last complete `\boxed{}`. In a joint trajectory the box must stand
    in the last turn and that turn must close with `</answer>`; a text that only thinks is read behind its
    last `</think>`; a text without tags is read as a whole. Without a box, math-verify looks for an answer
    near the end, in the latter two kinds only.

    Args:
        text: the whole response, or the answer alone.
        ground_truth: LaTeX, words, a choice letter, or a number.
        timeout_s: limit of one comparison; one that takes longer does not match and is counted
            (`answer_failures`), the first one with a warning.

    Raises:
        TypeError, ValueError: a ground truth that is no answer, such as None, "" or a whole solution.
        RuntimeError: the grader process cannot be started.
    """
    return judge_answer(text, ground_truth, timeout_s=timeout_s) is Verdict.MATCH


def judge_answer(text: str, ground_truth: str | int | float, *, timeout_s: float = 5.0) -> Verdict:
    """Like `match_answer`, and tells a different answer from one that could not be compared."""
    gold = plain.spell_out(ground_truth_text(ground_truth))
    region, joint = answer_region(text)
    box = last_boxed(region)
    boxed = box is not None
    answer = plain.spell_out(region if box is None else box)
    if not answer.strip() or (joint and not boxed):
        return Verdict.DIFFERENT
    decided = _decided(answer, gold, boxed)
    if decided is not None:
        return Verdict.MATCH if decided else Verdict.DIFFERENT
    compared = answer if boxed else answer[-_TAIL:]
    try:
        return _settled(compared, gold, boxed, timeout_s)
    except _UnsettledError as error:
        _report(error.verdict, compared, timeout_s)
        return error.verdict


def answer_failures() -> dict[Verdict, int]:
    """How many comparisons of this process timed out or crashed the grader so far."""
    with _lock:
        return dict(_failures)


def answer_region(text: str) -> tuple[str, bool]:
    """The part of a response in which the final answer may stand, and whether it is a joint trajectory."""
    turns = parse_trajectory(text)
    if any(turn.role is Role.SHORT for turn in turns):
        last = turns[-1]
        answered = last.role is Role.SHORT and last.closing is Closing.ANSWER
        return (last.body if answered else ""), True
    if turns:
        _, closed, rest = text.rpartition(THINK_CLOSE)
        return (rest if closed else ""), False
    return text, False


def final_answer(text: str) -> str | None:
    r"""The final answer of a response as it stands in its last `\boxed{}`; None when there is none.

    Where the box may stand is as in `match_answer`. An answer in prose has no box and is not returned, though
    `match_answer` may accept it.
    """
    return last_boxed(answer_region(text)[0])


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{}` whose braces balance, or None."""
    for opening in reversed(list(_BOX.finditer(text))):
        end = _closing_brace(text, opening.end())
        if end is not None:
            return text[opening.end() : end]
    return None


def _closing_brace(text: str, start: int) -> int | None:
    depth, position = 1, start
    while position < len(text):
        if text[position] == "\\":
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
        position += 1
    return None


def _decided(answer: str, gold: str, boxed: bool) -> bool | None:
    if len(answer) > _LONGEST:
        return False if boxed else None
    decided = plain.decide(answer, gold, boxed=boxed)
    if decided is None and boxed and plain.is_runaway(answer):
        return False
    # Prose is not searched for the words that the ground truth happens to be: any mention would match.
    return False if decided is None and not boxed and plain.is_words(gold) else decided


class _UnsettledError(Exception):
    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict)
        self.verdict = verdict


@lru_cache(maxsize=4096)
def _settled(answer: str, gold: str, boxed: bool, timeout_s: float) -> Verdict:
    """A group often holds the same answer many times. A failure is raised, so it is not remembered."""
    verdict = GRADERS.ask(answer, gold, boxed=boxed, timeout_s=timeout_s)
    if verdict in (Verdict.TIMED_OUT, Verdict.CRASHED):
        raise _UnsettledError(verdict)
    return verdict


def _report(verdict: Verdict, answer: str, timeout_s: float) -> None:
    with _lock:
        _failures[verdict] += 1
        first = _failures[verdict] == 1
    logger.log(
        logging.WARNING if first else logging.DEBUG,
        "comparing the answer %.200r ended as %s (limit %g s); it counts as not matching%s",
        answer,
        verdict,
        timeout_s,
        ". Later ones are only counted, see answer_failures()" if first else "",
    )


def ground_truth_text(ground_truth: Any) -> str:
    """A ground truth as the text that answers are compared with.

    Raises:
        TypeError, ValueError: it is no answer; see `match_answer`.
    """
    if isinstance(ground_truth, str):
        box = last_boxed(ground_truth)
        text = ground_truth if box is None else box
        if not text.strip() or len(text) > _LONGEST:
            raise ValueError(
                f"ground_truth = {text[:80]!r}: must have 1 to {_LONGEST} characters and has {len(text)}; "
                "give the final answer alone"
            )
        return text
    if isinstance(ground_truth, bool) or not isinstance(ground_truth, numbers.Real):
        kind = type(ground_truth).__name__
        raise TypeError(f"ground_truth = {ground_truth!r}: is a {kind}; give one answer as a string or a number")
    if isinstance(ground_truth, numbers.Rational):
        return str(ground_truth)
    value = float(ground_truth)
    if not math.isfinite(value):
        raise ValueError(f"ground_truth = {value}: is not a finite number; give it as LaTeX, such as \\infty")
    return format(Decimal(repr(value)), "f")
