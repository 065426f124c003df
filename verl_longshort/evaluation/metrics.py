"""Accuracy, tokens and the accuracy-efficiency score, each with its uncertainty.

`Interval` is a mean with a 95 % confidence interval. `accuracy` and `mean` estimate one from samples grouped
by problem, because the samples of one problem are not independent. Of several benchmarks they give the mean
of the benchmarks' means, each benchmark counting the same, and resample problems within each benchmark.
`accuracy_efficiency_score` is the AES that the paper reports, `score_interval` and `mean_score_interval` the
same for samples, `score_difference` what two models differ by.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 9999
GAIN_WEIGHT = 3.0
LOSS_WEIGHT = -5.0

Samples = Sequence[Sequence[float]]
"""Values of one benchmark by problem and sample; truth values count as 0 and 1."""

Columns = tuple[Samples, Samples]
"""Correct answers (0 or 1) and lengths of one benchmark."""


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


def accuracy(*correct: Samples) -> Interval:
    """Share of correct answers, `correct[problem][sample]` of each benchmark.

    One benchmark with one sample per problem: Wilson's interval. Otherwise bootstrap over problems; where all
    problems of a benchmark alone have the same share the bootstrap has no spread, and Wilson's interval over
    the problems, rounded to whole ones, is given in its place.
    """
    from scipy import stats

    if len(correct) == 1:
        shares = _problem_means(correct[0])
        if np.ptp(shares) == 0 or max(map(len, correct[0])) == 1:
            result = stats.binomtest(round(float(shares.sum())), len(shares))
            low, high = result.proportion_ci(CONFIDENCE, method="wilson")
            return Interval(value=float(shares.mean()), low=float(low), high=float(high))
    return mean(*correct)


def mean(*values: Samples) -> Interval:
    """Mean of `values[problem][sample]` (tokens, turns ...) of each benchmark, bootstrap over problems.

    NaN bounds when a benchmark has one problem.
    """
    strata = [_problem_means(samples)[np.newaxis] for samples in values]
    value = float(np.mean([stratum.mean() for stratum in strata]))
    low, high = _bootstrap(strata, lambda means: means[0])
    return Interval(value=value, low=low, high=high)


def accuracy_efficiency_score(accuracy: float, length: float, *, base_accuracy: float, base_length: float) -> float:
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


def score_interval(correct: Samples, lengths: Samples, base_correct: Samples, base_lengths: Samples) -> Interval:
    """`mean_score_interval` of one benchmark."""
    return mean_score_interval([(correct, lengths)], [(base_correct, base_lengths)])


def mean_score_interval(own: Sequence[Columns], base: Sequence[Columns]) -> Interval:
    """AES with a bootstrap interval over problems; `own` and `base` hold the same problems of the same
    benchmarks. Accuracy and length are means over the benchmarks.

    NaN bounds when a benchmark has one problem, or so few correct answers that a resample of the base has none.
    Raises ValueError as `accuracy_efficiency_score` does.
    """
    strata = [
        np.stack([_problem_means(samples) for samples in (*mine, *theirs)])
        for mine, theirs in zip(own, base, strict=True)
    ]
    means = np.mean([stratum.mean(axis=1) for stratum in strata], axis=0)
    value = accuracy_efficiency_score(means[0], means[1], base_accuracy=means[2], base_length=means[3])
    low, high = _bootstrap(strata, _finite_score)
    return Interval(value=value, low=low, high=high)


def score_difference(own: Columns, other: Columns, base: Columns) -> Interval:
    """AES of `own` minus AES of `other`, both against `base`, with a bootstrap interval over the problems of one
    benchmark, which all three answered.

    NaN bounds and ValueError as in `mean_score_interval`.
    """
    stratum = np.stack([_problem_means(samples) for columns in (own, other, base) for samples in columns])
    means = stratum.mean(axis=1)
    scores = [
        accuracy_efficiency_score(*means[place : place + 2], base_accuracy=means[4], base_length=means[5])
        for place in (0, 2)
    ]
    low, high = _bootstrap([stratum], lambda m: _finite_score(m[[0, 1, 4, 5]]) - _finite_score(m[[2, 3, 4, 5]]))
    return Interval(value=scores[0] - scores[1], low=low, high=high)


def _score(accuracy: Any, length: Any, base_accuracy: Any, base_length: Any) -> Any:
    gain = (accuracy - base_accuracy) / base_accuracy
    return (base_length - length) / base_length + np.where(gain >= 0, GAIN_WEIGHT, LOSS_WEIGHT) * np.abs(gain)


def _finite_score(means: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        score: np.ndarray = _score(*means)
    return np.where(np.isfinite(score), score, math.nan)


def _problem_means(values: Samples) -> np.ndarray:
    if not values or not all(values):
        raise ValueError("every problem needs at least one sample, and there must be at least one problem")
    return np.array([np.mean(samples) for samples in values], dtype=float)


def _bootstrap(strata: Sequence[np.ndarray], statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """The bounds of `statistic` of the mean over the strata of the mean over the problems.

    A stratum, one benchmark, is [columns, problems]; `statistic` takes [columns, resamples].
    """
    from scipy import stats

    if min(stratum.shape[1] for stratum in strata) < 2:
        return math.nan, math.nan

    def resampled(*problems: np.ndarray, axis: int) -> np.ndarray:
        drawn = [
            stratum[:, chosen.astype(int)].mean(axis=axis) for stratum, chosen in zip(strata, problems, strict=True)
        ]
        return statistic(np.mean(drawn, axis=0))

    with warnings.catch_warnings():
        # scipy warns where the bounds are NaN; the callers say when that is.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            [np.arange(stratum.shape[1]) for stratum in strata],
            resampled,
            vectorized=True,
            axis=-1,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            batch=500,
            method="percentile",
            # A fixed seed: the same records must give the same table.
            rng=np.random.default_rng(0),
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
