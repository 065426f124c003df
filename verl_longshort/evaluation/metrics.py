"""Accuracy, tokens and the accuracy-efficiency score, each with its uncertainty.

`Interval` is a mean with a 95 % confidence interval. `accuracy` and `mean` estimate one from samples grouped
by problem, because the samples of one problem are not independent. `accuracy_efficiency_score` is the AES
that the paper reports, `score_interval` the same for samples.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999
GAIN_WEIGHT = 3.0
LOSS_WEIGHT = -5.0

Samples = Sequence[Sequence[float]]
"""Values by problem and sample; truth values count as 0 and 1."""


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


def accuracy(correct: Samples) -> Interval:
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


def mean(values: Samples) -> Interval:
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
    return float(_score(accuracy, length, base_accuracy, base_length))


def score_interval(
    correct: Samples, lengths: Samples, base_correct: Samples, base_lengths: Samples
) -> Interval:
    """AES with a bootstrap interval over problems, `correct[problem][sample]`; the base answered the same
    ones.

    NaN bounds when there is one problem, or so few right answers that a resample of the base has none. Raises
    ValueError as `accuracy_efficiency_score` does.
    """
    columns = [_problem_means(values) for values in (correct, lengths, base_correct, base_lengths)]
    value = accuracy_efficiency_score(
        columns[0].mean(), columns[1].mean(), base_accuracy=columns[2].mean(), base_length=columns[3].mean()
    )
    low, high = _bootstrap(*columns, statistic=_mean_score) if len(columns[0]) > 1 else (math.nan, math.nan)
    return Interval(value=value, low=low, high=high)


def _score(accuracy: Any, length: Any, base_accuracy: Any, base_length: Any) -> Any:
    gain = (accuracy - base_accuracy) / base_accuracy
    return (base_length - length) / base_length + np.where(gain >= 0, GAIN_WEIGHT, LOSS_WEIGHT) * np.abs(gain)


def _mean_score(*columns: np.ndarray, axis: int) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        score: np.ndarray = _score(*(column.mean(axis=axis) for column in columns))
    return np.where(np.isfinite(score), score, math.nan)


def _problem_means(values: Samples) -> np.ndarray:
    if not values or not all(values):
        raise ValueError("every problem needs at least one sample, and there must be at least one problem")
    return np.array([np.mean(samples) for samples in values], dtype=float)


def _bootstrap(*columns: np.ndarray, statistic: Callable[..., Any] = np.mean) -> tuple[float, float]:
    with warnings.catch_warnings():
        # scipy warns where the bounds are NaN; the callers say when that is.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            columns,
            statistic,
            paired=True,
            vectorized=True,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            batch=500,
            method="percentile",
            # A fixed seed: the same records must give the same table.
            rng=np.random.default_rng(0),
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
