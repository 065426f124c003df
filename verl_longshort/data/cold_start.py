"""Cold-start trajectories from the generator's own labels: here it is known which thoughts matter.

As in the paper (section 4) the first thought stays long, and so do the important ones, here the hard steps;
all others are replaced by their concise form, and neighbours of one kind are merged into one turn. No rule
that has to find the important thoughts is this exact, so often the first re-check of a hard step stays long
too: the pair starts careful, and what it can do without is left for reinforcement learning to find. A record:

    {"problem": str, "ground_truth": str, "turns": [{"role": "long" | "short", "text": str}, ...]}
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any

from verl_longshort.data.gaps import as_turns, fill_gaps, find_gaps
from verl_longshort.data.world import Problem, Thought, ThoughtKind, long_cot

RECHECKS_KEPT = 0.6
"""Share of the hard steps whose first re-check stays long as well."""


def cold_start_records(problems: Iterable[Problem], *, seed: int) -> list[dict[str, Any]]:
    """One record per problem; `seed` decides the wording of the long thoughts and which re-checks stay."""
    rng = random.Random(seed)
    return [_record(problem, long_cot(problem, rng), rng) for problem in problems]


def joint_turns(thoughts: Sequence[Thought], keep_long: Sequence[bool]) -> list[dict[str, str]]:
    """The turns of both roles, in order, when the marked thoughts stay long and the others become concise.

    Raises:
        ValueError: the first thought is not kept long, or the last is: long opens and short ends.
    """
    if not keep_long[0] or keep_long[-1]:
        raise ValueError("keep_long: the first thought must stay long and the last must not; mark them so")
    fillings = [
        " ".join(thoughts[k].concise for k in gap.indexes if thoughts[k].concise)
        for gap in find_gaps(keep_long)
    ]
    return as_turns(fill_gaps([thought.text for thought in thoughts], keep_long, fillings, separator=" "))


def _record(problem: Problem, thoughts: Sequence[Thought], rng: random.Random) -> dict[str, Any]:
    keep_long = [thought.kind in (ThoughtKind.RESTATE, ThoughtKind.HARD) for thought in thoughts]
    for k, thought in enumerate(thoughts[1:], start=1):
        follows_hard = thoughts[k - 1].kind is ThoughtKind.HARD
        if follows_hard and thought.kind is ThoughtKind.RECHECK_HARD and rng.random() < RECHECKS_KEPT:
            keep_long[k] = True
    return {
        "problem": problem.text,
        "ground_truth": problem.answer,
        "turns": joint_turns(thoughts, keep_long),
    }
