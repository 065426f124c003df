"""EM, the answer match: finds the final answer of a text and compares it with the ground truth.

Plain cases are decided here (`plain`), the rest by math-verify in a process of its own (`grader_process`,
`grader_pool`), so the time limit holds in any thread and against any computation.
"""

import logging
import threading
from collections import Counter
from functools import lru_cache

from longshort_reward import plain
from longshort_reward.grader_pool import GRADERS, Verdict
from longshort_reward.ground_truth import LONGEST, ground_truth_text
from longshort_reward.protocol import THINK_CLOSE, Closing, Role, parse_trajectory
from longshort_reward.reading.boxes import bare_boxed, last_boxed, opens_box
from longshort_reward.reading.choices import choice_in_prose
from longshort_reward.reading.equality import states_another
from longshort_reward.reading.prose import denies, said_answer

logger = logging.getLogger(__name__)

_TAIL = 1500
_lock = threading.Lock()
_failures: Counter[Verdict] = Counter()


def match_answer(text: str, ground_truth: str | int | float, *, timeout_s: float = 5.0) -> bool:
    r"""Whether the final answer of `text` equals `ground_truth`.

    The final answer is the content of the last complete `\boxed{}`. In a joint trajectory the box must stand
    in the last turn and that turn must close with `</answer>`; a text that only thinks is read behind its
    last `</think>`; a text without tags is read as a whole. In the latter two kinds an answer may also stand
    in prose, behind `the answer is` or near the end; not if a box was opened and cut off.

    Args:
        text: the whole response, or the answer alone.
        ground_truth: LaTeX, words, a choice letter, or a number.
        timeout_s: limit of one comparison in seconds of processor time; one that takes longer does not match
            and is counted (`answer_failures`), the first one with a warning.

    Raises:
        TypeError, ValueError: a ground truth that is no answer, such as None, "" or a whole solution.
        RuntimeError: the grader process cannot be started, or was killed every time it was asked.
    """
    return judge_answer(text, ground_truth, timeout_s=timeout_s) is Verdict.MATCH


def judge_answer(text: str, ground_truth: str | int | float, *, timeout_s: float = 5.0) -> Verdict:
    """Like `match_answer`, and tells a different answer from one that could not be compared."""
    gold = ground_truth_text(ground_truth)
    region, joint = answer_region(text)
    box = last_boxed(region)
    if box is None and not joint:
        box = bare_boxed(region)
    if box is not None:
        return _judged_answer(box, gold, timeout_s)
    if joint or not region.strip() or opens_box(region):
        return Verdict.DIFFERENT
    return _judged_prose(region, gold, timeout_s)


def _judged_answer(answer: str, gold: str, timeout_s: float) -> Verdict:
    """An answer that stands alone."""
    if not answer.strip() or len(answer) > LONGEST:
        return Verdict.DIFFERENT
    decided = plain.decide(answer, gold)
    if decided is None and not plain.is_runaway(answer):
        return _asked(answer, gold, boxed=True, timeout_s=timeout_s)
    return Verdict.MATCH if decided else Verdict.DIFFERENT


def _judged_prose(text: str, gold: str, timeout_s: float) -> Verdict:
    """A text that may hold more than its answer."""
    if letter := plain.choice(gold):
        return Verdict.MATCH if choice_in_prose(text) == letter else Verdict.DIFFERENT
    said = said_answer(text)
    if said is not None and denies(said):
        return Verdict.DIFFERENT
    for answer in (text, said):
        if answer is not None and len(answer) <= LONGEST:
            if plain.decide(answer, gold):
                return Verdict.MATCH
            if states_another(answer, gold):
                return Verdict.DIFFERENT
    # Prose is not searched for the words that the ground truth happens to be: any mention would match.
    if plain.is_words(gold):
        return Verdict.DIFFERENT
    return _asked(text[-_TAIL:], gold, boxed=False, timeout_s=timeout_s)


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
    region, joint = answer_region(text)
    box = last_boxed(region)
    return box if box is not None or joint else bare_boxed(region)


def _asked(answer: str, gold: str, *, boxed: bool, timeout_s: float) -> Verdict:
    try:
        return _settled(answer, gold, boxed, timeout_s)
    except _UnsettledError as error:
        _report(error.verdict, answer, timeout_s)
        return error.verdict


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
