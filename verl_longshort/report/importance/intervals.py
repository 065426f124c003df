"""Means over chains with intervals that know which values belong to one problem.

Values of one problem (its thoughts, its prefixes, several chains) are not independent. So the variance of a
mean is that between problems: with y_g the sum and n_g the number of values of problem g of G, the mean is
sum y / sum n and its variance G / (G - 1) * sum (y_g - mean * n_g)^2 / (sum n)^2, the usual one of a ratio.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from verl_longshort.data.importance import CONFIDENCE, Floats
from verl_longshort.evaluation.metrics import Interval

Groups = Sequence[str]
"""The problem of each value."""


def mean_interval(values: Sequence[float] | Floats, groups: Groups) -> Interval:
    """Mean of the values with Student's interval; without bounds when they are of one problem."""
    mean, error, problems = _pooled(values, groups)
    if problems == 1:
        return Interval(value=mean, low=math.nan, high=math.nan)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, problems - 1)) * error
    return Interval(value=mean, low=mean - reach, high=mean + reach)


def share_interval(values: Sequence[float] | Floats, groups: Groups) -> Interval:
    """Mean of values from 0 to 1 (accuracies, truth values) with an interval that stays between 0 and 1.

    Wilson's, for as many independent values as would have the same variance; for the number of problems where
    all of them agree. Without bounds when the values are of one problem.
    """
    mean, error, problems = _pooled(values, groups)
    if problems == 1:
        return Interval(value=mean, low=math.nan, high=math.nan)
    spread = mean * (1 - mean)
    low, high = _wilson(mean, spread / error**2 if error > 1e-9 and spread > 0 else problems)
    return Interval(value=mean, low=low, high=high)


def _pooled(values: Sequence[float] | Floats, groups: Groups) -> tuple[float, float, int]:
    """Mean, its standard error and the number of problems."""
    if not len(values):
        raise ValueError("no values: nothing has a mean")
    _, of, counts = np.unique(np.array(groups, dtype=str), return_inverse=True, return_counts=True)
    sums = np.bincount(of, weights=np.asarray(values, dtype=float))
    mean = sums.sum() / counts.sum()
    problems = len(counts)
    squares = float(((sums - mean * counts) ** 2).sum())
    error = math.sqrt(squares * problems / max(1, problems - 1)) / counts.sum()
    return float(mean), float(error), problems


def _wilson(share: float, number: float) -> tuple[float, float]:
    # scipy's takes integers only
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    middle = share + z * z / (2 * number)
    reach = z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    scale = 1 + z * z / number
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)
