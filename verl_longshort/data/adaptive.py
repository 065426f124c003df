"""Where more rollouts are worth their price: prefixes on which an open keep/compress decision hangs."""

from collections.abc import Sequence

import numpy as np

from verl_longshort.data.importance import PassCount, flips, joint_metric


def more_rollouts(
    tokens: Sequence[int], counts: Sequence[PassCount], *, confidence: float, budget: int, step: int
) -> dict[int, int]:
    """How many more rollouts each prefix (0: the empty one) shall get; {} when it is time to stop.

    A decision is open while it could flip with a probability above 1 - confidence (`importance.flips`). It
    hangs on four accuracies: those before and after its own thought, and those before and after the thought
    that holds the maximum. Each gets `step` more, the most doubtful decisions first, until the record has had
    `budget` rollouts in all.

    A decision between thoughts of equal true accuracy is never settled, since delta then stays a coin toss:
    the budget is what ends it.
    """
    left = budget - sum(count.samples for count in counts)
    more: dict[int, int] = {}
    for prefix in _involved(tokens, counts, confidence):
        if left <= 0:
            break
        more[prefix] = min(step, left)
        left -= more[prefix]
    return more


def _involved(tokens: Sequence[int], counts: Sequence[PassCount], confidence: float) -> list[int]:
    doubt = flips(tokens, counts)
    metric = joint_metric(tokens, [count.rate for count in counts])
    prefixes: dict[int, None] = {}
    for thought in np.argsort(-doubt, kind="stable"):
        if doubt[thought] <= 1 - confidence:
            break
        leader = int(np.argmax(metric[:thought]))
        prefixes |= dict.fromkeys((int(thought) + 1, int(thought), leader + 1, leader))
    return list(prefixes)
