"""How much a thought matters: the paper's metric M, and how sure one can be of what it decides.

Everything here is a function of numbers: the tokens of the thoughts y_1 ... y_n of one chain, and how many of
the rollouts from each prefix were correct (`PassCount`; the first one belongs to the empty prefix, so a chain of n
thoughts has n + 1). Arrays may have leading dimensions; the last one runs over thoughts, or over prefixes.

M comes from section 3 of the paper (arXiv 2505.11827), the running maximum from section 4. Two cautions:

* The proof of |M - M_opt| <= epsilon / ln 2 lets the penalty delta cancel. It does not: delta is decided by a
  comparison of two noisy accuracies, and a flip moves M by 0.25, whatever the bound says. So a thought gets
  both, the bound and the probability that its delta is on the wrong side.
* The running maximum keeps a thought when its M is above all earlier ones; a maximum of noisy numbers is too
  large, and noise alone makes new maxima. `ThoughtImportance.flip` is the probability that a decision is of that sort.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

PENALTY = 0.25
CONFIDENCE = 0.95
DRAWS = 4000
_PRIOR = 0.5  # Jeffreys: Beta(1/2, 1/2)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class PassCount:
    """Rollouts from one prefix: `correct` of `samples` reached the answer."""

    correct: int
    samples: int

    def __post_init__(self) -> None:
        if self.samples < 1 or not 0 <= self.correct <= self.samples:
            raise ValueError(
                f"{self.correct} correct of {self.samples} rollouts: need at least one rollout and no more correct ones"
            )

    @property
    def rate(self) -> float:
        """p-hat, the observed accuracy."""
        return self.correct / self.samples


@dataclass(frozen=True, kw_only=True)
class ThoughtImportance:
    """What the rollouts say about one thought."""

    m: float
    """The paper's metric; -0.25 ... 1."""
    delta: float
    """The penalty in it: 0.25 or 0."""
    bound: float
    """epsilon / ln 2: how far M may be off at the confidence chosen, were delta certain."""
    low: float
    high: float
    """Wilson interval of the accuracy after this thought."""
    keep: bool
    """Whether the running maximum keeps it long, taken at face value."""
    flip: float
    """Posterior probability that the true accuracies decide the other way."""
    delta_flip: float
    """Posterior probability that delta is on the wrong side."""


def hoeffding_epsilon(samples: int, confidence: float = CONFIDENCE) -> float:
    """The epsilon with P(|p-hat - p| <= epsilon) >= confidence: sqrt(ln(2 / (1 - confidence)) / (2 N))."""
    return math.sqrt(math.log(2 / (1 - confidence)) / (2 * samples))


def metric_bound(samples: int, confidence: float = CONFIDENCE) -> float:
    """The paper's bound on |M - M_opt| (section 3): epsilon / ln 2 with Hoeffding's epsilon.

    log2(1 + f p) has a slope of at most f / ln 2 in p, and the length factors f are at most 1. Holds where
    delta is the right one; see the module's docstring.
    """
    return hoeffding_epsilon(samples, confidence) / math.log(2)


@lru_cache(maxsize=4096)
def wilson(correct: int, samples: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's interval of an accuracy."""
    from scipy import stats

    low, high = stats.binomtest(correct, samples).proportion_ci(confidence, method="wilson")
    return float(low), float(high)


def length_factors(tokens: ArrayLike) -> Floats:
    """(d_y - d_1..i) / d_y * (d_y - d_i) / d_y of each thought (section 3): what is left after it, times how
    short it is. `tokens` are the lengths d_i; they may not all be 0.
    """
    lengths = np.asarray(tokens, dtype=float)
    total = lengths.sum(axis=-1, keepdims=True)
    if not np.all(total > 0) or np.any(lengths < 0):
        raise ValueError(f"tokens = {lengths}: lengths must not be negative, and not all of them 0")
    factors: Floats = (total - np.cumsum(lengths, axis=-1)) / total * (total - lengths) / total
    return factors


def penalties(accuracies: ArrayLike) -> Floats:
    """delta_i (section 3): 0.25 where p_i <= p_{i-1}, else 0; `accuracies` [..., n + 1] give [..., n]."""
    p = np.asarray(accuracies, dtype=float)
    return np.where(p[..., 1:] <= p[..., :-1], PENALTY, 0.0)


def joint_metric(tokens: ArrayLike, accuracies: ArrayLike) -> Floats:
    """M (section 3): log2(1 + length factors * p_i) - delta_i.

    Args:
        tokens: [n] lengths of the thoughts.
        accuracies: [..., n + 1], the empty prefix first.

    Returns:
        [..., n]; the last one is 0 or -delta whatever its accuracy, since nothing is left after it.
    """
    p = np.asarray(accuracies, dtype=float)
    metric: Floats = np.log2(1 + length_factors(tokens) * p[..., 1:]) - penalties(p)
    return metric


def running_maximum(metric: ArrayLike) -> Flags:
    """Which thoughts stay long (section 4): the first, and each whose M is above all M before it."""
    m = np.asarray(metric, dtype=float)
    keep = np.ones(m.shape, dtype=bool)
    keep[..., 1:] = m[..., 1:] > np.maximum.accumulate(m, axis=-1)[..., :-1]
    return keep


def posterior_draws(counts: Sequence[PassCount], *, draws: int = DRAWS, seed: int = 0) -> Floats:
    """True accuracies that the counts allow: [draws, n + 1] from Beta(correct + 1/2, incorrect + 1/2) each."""
    correct = np.array([count.correct for count in counts], dtype=float)
    samples = np.array([count.samples for count in counts], dtype=float)
    rng = np.random.default_rng(seed)
    return rng.beta(correct + _PRIOR, samples - correct + _PRIOR, size=(draws, len(counts)))


def flips(tokens: ArrayLike, counts: Sequence[PassCount], *, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Probability that each decision of the running maximum is another one under the true accuracies.

    The whole rule is applied to each draw of the posterior (all thoughts of a chain at once, since a decision
    depends on every earlier accuracy); a flip is a draw that decides otherwise than the observed accuracies.
    Standard error of the simulation: at most 0.008 at 4000 draws. Result [n]; 0 for the first thought.
    """
    drawn = running_maximum(joint_metric(tokens, posterior_draws(counts, draws=draws, seed=seed)))
    return (drawn != decisions(tokens, counts)).mean(axis=0)


def delta_flips(counts: Sequence[PassCount], *, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Probability that p_i <= p_{i-1} is otherwise under the true accuracies than observed; [n]."""
    drawn = penalties(posterior_draws(counts, draws=draws, seed=seed))
    return (drawn != penalties([count.rate for count in counts])).mean(axis=0)


def decisions(tokens: ArrayLike, counts: Sequence[PassCount]) -> Flags:
    """The running maximum on the observed accuracies; [n]."""
    return running_maximum(joint_metric(tokens, [count.rate for count in counts]))


def thought_importances(
    tokens: Sequence[int], counts: Sequence[PassCount], *, confidence: float = CONFIDENCE
) -> list[ThoughtImportance]:
    """All of this module for one chain: n lengths and n + 1 counts give n results.

    `confidence` is that of interval and bound. Raises ValueError when the numbers do not fit together.
    """
    if len(counts) != len(tokens) + 1:
        raise ValueError(
            f"{len(tokens)} thoughts and {len(counts)} counts: need one count for each thought and one for "
            "the empty prefix"
        )
    rates = [count.rate for count in counts]
    columns = zip(
        joint_metric(tokens, rates),
        penalties(rates),
        decisions(tokens, counts),
        flips(tokens, counts),
        delta_flips(counts),
        counts[1:],
        strict=True,
    )
    return [
        ThoughtImportance(
            m=float(m),
            delta=float(delta),
            bound=metric_bound(count.samples, confidence),
            low=wilson(count.correct, count.samples, confidence)[0],
            high=wilson(count.correct, count.samples, confidence)[1],
            keep=bool(keep),
            flip=float(flip),
            delta_flip=float(delta_flip),
        )
        for m, delta, keep, flip, delta_flip, count in columns
    ]


def more_rollouts(
    tokens: Sequence[int], counts: Sequence[PassCount], *, confidence: float, budget: int, step: int
) -> dict[int, int]:
    """How many more rollouts each prefix (0: the empty one) shall get; {} when it is time to stop.

    A decision is open while it could flip with a probability above 1 - confidence (`flips`). It
    hangs on four accuracies: those before and after its own thought, and those before and after the thought
    that holds the maximum. Each gets `step` more, the most doubtful decisions first, until the record has had
    `budget` rollouts in all.

    A decision between thoughts of equal true accuracy is never settled, since delta then stays a coin toss:
    the budget is what ends it.
    """
    left = budget - sum(count.samples for count in counts)
    doubt = flips(tokens, counts)
    metric = joint_metric(tokens, [count.rate for count in counts])
    more: dict[int, int] = {}
    for thought in map(int, np.argsort(-doubt, kind="stable")):
        if doubt[thought] <= 1 - confidence:
            break
        leader = int(np.argmax(metric[:thought]))
        for prefix in (thought + 1, thought, leader + 1, leader):
            if left > 0 and prefix not in more:
                more[prefix] = min(step, left)
                left -= more[prefix]
    return more
