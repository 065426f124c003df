"""Accuracy, tokens and the accuracy-efficiency score, each with its uncertainty.

`Interval` is a mean with a 95 % confidence interval. `accuracy` and `mean` estimate one from samples grouped
by problem, because the samples of one problem are not independent. `accuracy_efficiency_score` is the AES
that the paper reports.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999
GAIN_WEIGHT = 3.0
LOSS_WEIGHT = -5.0


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its 95 % confidence interval. `low` and `high` are NaN when one value is all there is."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """The three numbers, NaN as null."""
        return {name: None if math.isnan(number) else number for name, number in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, float | None]) -> "Interval":
        """The inverse of `to_json`."""
        return cls(**{name: math.nan if number is None else number for name, number in data.items()})


def accuracy(correct: Sequence[Sequence[bool]]) -> Interval:
    """Share of right answers over problems, `correct[problem][sample]`.

    One sample per problem: Wilson's interval. Several: bootstrap over problems; where all problems have the
    same share the bootstrap has no spread, and Wilson's interval over the problems, rounded to whole ones, is
    given in its place.
    """
    shares = _problem_means(correct)
    value = float(shares.mean())
    if len(shares) > 1 and np.ptp(shares) > 0 and max(map(len, correct)) > 1:
        low, high = _bootstrap(shares)
    else:
        result = stats.binomtest(round(float(shares.sum())), len(shares))
        low, high = result.proportion_ci(CONFIDENCE, method="wilson")
    return Interval(value=value, low=float(low), high=float(high))


def mean(values: Sequence[Sequence[float]]) -> Interval:
    """Mean of `values[problem][sample]` (tokens, turns ...) with a bootstrap interval over problems."""
    means = _problem_means(values)
    low, high = _bootstrap(means) if len(means) > 1 else (math.nan, math.nan)
    return Interval(value=float(means.mean()), low=low, high=high)


def accuracy_efficiency_score(
    accuracy: float, length: float, *, base_accuracy: float, base_length: float
) -> float:
    """AES against a base: share of length saved, plus three times the relative gain in accuracy, or minus
    five times the relative loss. Accuracies in one unit, lengths in one unit. 0 for the base itself.

    Raises ValueError when a base value is not positive: the score is relative to it.
    """
    if base_accuracy <= 0 or base_length <= 0:
        raise ValueError(
            f"AES is relative to the base: its accuracy ({base_accuracy}) and length ({base_length}) must be "
            "positive; choose another base row"
        )
    weight = GAIN_WEIGHT if accuracy >= base_accuracy else LOSS_WEIGHT
    saved = (base_length - length) / base_length
    return saved + weight * abs(accuracy - base_accuracy) / base_accuracy


def _problem_means(values: Sequence[Sequence[float]]) -> np.ndarray:
    if not values or not all(values):
        raise ValueError("every problem needs at least one sample, and there must be at least one problem")
    return np.array([np.mean(samples) for samples in values], dtype=float)


def _bootstrap(means: np.ndarray) -> tuple[float, float]:
    # A fixed seed: the same records must give the same table.
    result = stats.bootstrap(
        (means,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        batch=500,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
