"""What `longshort weigh` says at its end: a table of what was seen, and warnings where it means little."""

import statistics
from collections.abc import Sequence

from verl_longshort.base.files import Record
from verl_longshort.data.importance import running_maximum
from verl_longshort.data.records import Weighed

_NOTHING_CORRECT = (
    "No rollout is correct, so the accuracies tell no thought from another. Does the model (longshort.model) solve "
    "such problems, end within longshort.max_tokens, and answer in the form of longshort.joining?"
)
_FEW_END = 0.5  # of the rollouts: below it, accuracies mostly say where max_tokens cuts
_CUT_OFF = (
    "Only {share:.0%} of the rollouts ended; those that were cut off count as incorrect. Is longshort.max_tokens large "
    "enough, and does the model (longshort.model) end its answers in the form of longshort.joining?"
)


def warnings(weighed: Sequence[Weighed]) -> list[str]:
    """What says that the accuracies mean little, and what one rollout wrote."""
    all_counts = [counts for record in weighed for counts in [record.p_start, *record.thoughts]]
    share, lines = _ended_share(weighed), []
    if share is not None and share < _FEW_END:
        lines.append(_CUT_OFF.format(share=share))
    if not any(counts.correct for counts in all_counts):
        lines.append(_NOTHING_CORRECT)
    # behind a whole chain the answer is said already: who is wrong there shows why
    example = next((record.thoughts[-1].example for record in weighed if record.thoughts[-1].correct == 0), None)
    if lines and example is not None:
        lines.append(f"A rollout behind all thoughts of a chain: {example!r}")
    return lines


def _ended_share(weighed: Sequence[Weighed]) -> float | None:
    """Of all rollouts, those that ended; None where records do not say."""
    counts = [counts for record in weighed for counts in [record.p_start, *record.thoughts]]
    ended = [each.ended for each in counts if each.ended is not None]
    return sum(ended) / sum(each.samples for each in counts) if len(ended) == len(counts) and counts else None


def summary(weighed: Sequence[Weighed], rejects: Sequence[Record], confidence: float) -> dict[str, str]:
    """What the table shows, by name. "Within noise": the decision flips with probability > 1 - confidence."""
    rows = {"chains weighed": str(len(weighed)), "chains rejected": str(len(rejects))}
    if not weighed:
        return rows
    thoughts = [thought for record in weighed for thought in record.thoughts]
    # the first thought is always kept: nothing is decided there
    decided = [thought for record in weighed for thought in record.thoughts[1:]] or thoughts
    starts = [record.p_start for record in weighed]
    rollouts = sum(counts.samples for counts in [*thoughts, *starts])
    kept = sum(int(running_maximum([thought.m for thought in record.thoughts]).sum()) for record in weighed)
    noisy = sum(thought.flip > 1 - confidence for thought in decided)
    ended = _ended_share(weighed)
    wrong_side = statistics.mean(thought.delta_flip for thought in thoughts if thought.delta_flip is not None)
    return rows | {
        "thoughts": f"{len(thoughts)} ({len(thoughts) / len(weighed):.1f} per chain)",
        "rollouts": f"{rollouts} ({rollouts / (len(thoughts) + len(weighed)):.1f} per prefix)",
        "rollouts that ended": "not recorded" if ended is None else f"{ended:.1%}",
        "accuracy without thoughts": f"{statistics.mean(start.rate for start in starts):.3f}",
        **_forced_rows(weighed),
        "accuracy with all": f"{statistics.mean(record.thoughts[-1].p for record in weighed):.3f}",
        "kept by the running maximum": f"{kept / len(weighed):.2f} per chain",
        "bound on |M - M_opt| (mean)": f"{statistics.mean(thought.bound for thought in thoughts):.2f}",
        f"decisions within noise ({confidence:.0%})": f"{noisy / len(decided):.1%}",
        "delta on the wrong side (expected)": f"{wrong_side:.1%}",
    }


def _forced_rows(weighed: Sequence[Weighed]) -> dict[str, str]:
    """Of forced answers: none, and the whole chain before them."""
    pairs = [(record.p_start.forced, record.thoughts[-1].forced) for record in weighed]
    found = [(first, last) for first, last in pairs if first is not None and last is not None]
    if not found:
        return {}
    without, with_all = (statistics.mean(pair[side].rate for pair in found) for side in (0, 1))
    return {"correct when forced, without and with all": f"{without:.3f}, {with_all:.3f}"}
