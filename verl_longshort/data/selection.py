"""Which thoughts of a weighed chain stay long: the paper's rule, controls, and a rule by surprisal.

| rule | keeps | options |
|---|---|---|
| `m` | the paper's running maximum of M | `delta` |
| `confident-m` | of those, the ones that stay with a probability of at least `confidence` | `confidence` |
| `surprise` | thoughts after which the model hesitates less than ever before | `confidence`, `nats` |
| `answer` | the same, of answers that the model had to name at once | `confidence`, `nats` |
| `entropy` | thoughts after which the rollouts' final answers agree more than ever before | `nats` |
| `random` | as many as `m`, chosen at random | `count`, `seed` |
| `prefix-k` | the first `k` | `k` |

Every rule keeps the first thought, as the paper's does: long speaks first.

**Surprisal.** The accuracy of a prefix moves only when nothing hard is left. With two hard steps left, solving
one of them leaves the answer a guess, and p-hat where it was: accuracies multiply, and the rate of lucky
guesses hides the product. Uncertainty adds up: the expected surprisal -log p of the answers sampled from a
prefix is the entropy of what the model would write from there, one term for each thing it would have to guess
on the way. A thought that settles one of them takes its term away, whatever else is open.

So the rule keeps a thought when the answers after it are less surprising, by at least `nats`, than after any
prefix before it. The shift is Hodges and Lehmann's (the median of all pairwise differences, for which one
derailed rollout does not count), and a one-sided Mann-Whitney test has to agree at `confidence`. It costs
no rollouts beyond those of M and needs no text in place of a thought.

What it does not see: a step at which the model is wrong and sure. What it sees in excess: wording that is
open, which in prose is entropy too; rollouts at a temperature below 1 have less of it. `answer` and `entropy` see no
wording, the one because a forced answer has none (`forced.py`), the other because it looks at nothing but the final
answers. Both pay for it: what is left to be guessed of two open steps is one number, whose entropy is less than the
sum of the steps'.

Why not leave one thought out and give the others? The later thoughts of a chain name the results of the
earlier ones, and re-checks repeat them: without any single thought the answer is as easy as with it. It would
also cost n more sets of rollouts, none of which shares its context beyond the gap.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import numpy as np
from longshort_reward.errors import UserError

from verl_longshort.base.seeds import derived_bytes
from verl_longshort.data.importance import PENALTY, Floats, running_maximum
from verl_longshort.data.records import Weighed

_CONFIDENCE = 0.9


def select(record: Weighed, *, rule: str, **options: Any) -> list[bool]:
    """Whether each thought of a weighed record stays long.

    Raises:
        UserError: an unknown rule, an option that the rule does not have, or a value out of range.
    """
    if rule not in RULES:
        raise UserError("rule", rule, f"must be one of {', '.join(RULES)}")
    choose = RULES[rule]
    known = list(signature(choose).parameters)[1:]
    for key, value in options.items():
        if key not in known:
            remedy = f"the rule {rule} has no such option; it has {', '.join(known) or 'none'}"
            raise UserError(key, value, remedy)
    return [True, *map(bool, choose(record, **options)[1:])]


def by_metric(record: Weighed, delta: float = PENALTY) -> Sequence[bool]:
    """The paper's rule (section 4): M above all M before it.

    `delta`: the penalty in M of a thought that does not raise the accuracy; the records have the paper's.
    """
    _check("delta", delta, delta >= 0, "must be 0 or more")
    metric = [thought.m + (thought.delta - delta if thought.delta else 0.0) for thought in record.thoughts]
    return running_maximum(metric).tolist()


def by_confident_metric(record: Weighed, confidence: float = _CONFIDENCE) -> Sequence[bool]:
    """What the paper's rule keeps and what is no more likely to flip than 1 - confidence."""
    _check("confidence", confidence, 0 < confidence < 1, "must lie between 0 and 1")
    settled = [thought.flip <= 1 - confidence for thought in record.thoughts]
    return [kept and sure for kept, sure in zip(by_metric(record), settled, strict=True)]


def by_surprisal(record: Weighed, confidence: float = _CONFIDENCE, nats: float = math.log(2)) -> Sequence[bool]:
    """Thoughts that settle something the model would have to guess; see the module's docstring.

    `nats`: the least that has to be settled; log 2 is the toss of a coin.
    """
    prefixes = [record.p_start, *record.thoughts]
    if not all(counts.surprisals for counts in prefixes):
        raise UserError("rule", "surprise", f"the record {record.id} has no surprises: weigh it with longshort weigh")
    return _falling([_floats(counts.surprisals) for counts in prefixes], confidence, nats)


def by_forced_answer(record: Weighed, confidence: float = _CONFIDENCE, nats: float = math.log(2)) -> Sequence[bool]:
    """Thoughts that make the answer less surprising when it has to be named at once; options as of `surprise`."""
    forced = [counts.forced for counts in (record.p_start, *record.thoughts)]
    found = [_floats(counts.surprisals) for counts in forced if counts is not None and counts.surprisals]
    if len(found) < len(forced):
        remedy = f"the record {record.id} has no forced answers: weigh it with longshort.forced.samples=8"
        raise UserError("rule", "answer", remedy)
    return _falling(found, confidence, nats)


def by_answer_entropy(record: Weighed, nats: float = math.log(2)) -> Sequence[bool]:
    """Thoughts after which the final answers of the rollouts have an entropy at least `nats` below any before."""
    _check("nats", nats, nats >= 0, "must be 0 or more")
    prefixes = [record.p_start, *record.thoughts]
    if not all(counts.answers for counts in prefixes):
        raise UserError("rule", "entropy", f"the record {record.id} has no answers: weigh it with longshort weigh")
    entropies = [answer_entropy(counts.answers) for counts in prefixes]
    return [now <= min(entropies[: place + 1]) - nats for place, now in enumerate(entropies[1:])]


def random_subset(record: Weighed, count: int | None = None, seed: int = 0) -> Sequence[bool]:
    """`count` thoughts, the first among them; None: as many as the paper's rule keeps.

    The record's id and `seed` decide which.
    """
    thoughts = len(record.thoughts)
    if count is None:
        count = sum(select(record, rule="m"))
    _check("count", count, count >= 1, "must be 1 or more")
    rng = random.Random(derived_bytes(seed, record.id))
    chosen = {0, *rng.sample(range(1, thoughts), min(count, thoughts) - 1)}
    return [index in chosen for index in range(thoughts)]


def first_k(record: Weighed, k: int = 1) -> Sequence[bool]:
    """The first `k` thoughts."""
    _check("k", k, k >= 1, "must be 1 or more")
    return [index < k for index in range(len(record.thoughts))]


RULES: dict[str, Callable[..., Sequence[bool]]] = {
    "m": by_metric,
    "confident-m": by_confident_metric,
    "surprise": by_surprisal,
    "answer": by_forced_answer,
    "entropy": by_answer_entropy,
    "random": random_subset,
    "prefix-k": first_k,
}


def _falling(surprisals: Sequence[Floats], confidence: float, nats: float) -> list[bool]:
    """Of each prefix but the first: whether its surprisals lie below those of every prefix before it."""
    _check("confidence", confidence, 0 < confidence < 1, "must lie between 0 and 1")
    _check("nats", nats, nats >= 0, "must be 0 or more")
    lowest, *following = surprisals
    keep = []
    for after in following:
        keep.append(_falls(lowest, after, nats, confidence))
        if np.median(after) < np.median(lowest):
            lowest = after
    return keep


def _floats(values: Sequence[float]) -> Floats:
    return np.array(values, dtype=float)


def answer_entropy(answers: Sequence[str]) -> float:
    """In nats, of the observed shares; a rollout without an answer agrees with no other."""
    named = Counter(answer for answer in answers if answer)
    sizes = [*named.values(), *[1] * answers.count("")]
    return -sum(size / len(answers) * math.log(size / len(answers)) for size in sizes)


def _falls(before: Floats, after: Floats, nats: float, confidence: float) -> bool:
    """Whether `after` [N] lies at least `nats` below `before` [N'], and below it at all for sure."""
    from scipy import stats

    if np.median(before[:, None] - after[None, :]) < nats:
        return False
    test = stats.mannwhitneyu(before, after, alternative="greater")
    return bool(test.pvalue <= 1 - confidence)


def _check(key: str, value: float, holds: bool, remedy: str) -> None:
    if not holds:
        raise UserError(key, value, remedy)
