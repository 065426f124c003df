"""Several samples of one problem: pass@k and maj@k."""

from collections.abc import Sequence
from math import comb

from longshort_reward import match_answer
from longshort_reward.answer import ground_truth_text

from verl_longshort.base.files import Record


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
