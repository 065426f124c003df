"""Figures over several runs that differ in their seed: mean, lowest, highest, and an interval over the seeds.

Intervals over problems (`metrics.py`) say how sure one run's figure is; these say what other seeds would have given.
With three seeds they are wide, and they should be: 4.3 standard errors on either side.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from verl_longshort.evaluation.metrics import CONFIDENCE
from verl_longshort.evaluation.table import NONE


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One figure of several runs."""

    values: tuple[float, ...]
    """One of each seed, at least one."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % of the mean over seeds, by Student's t; None for one seed."""
        if len(self.values) < 2:
            return None
        from scipy import stats

        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(self.values) - 1))
        half = quantile * stdev(self.values) / math.sqrt(len(self.values))
        return self.mean - half, self.mean + half

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"mean": self.mean, "interval": self.interval, "values": list(self.values)}


def spread(values: Sequence[float | None]) -> Spread | None:
    """The figure of several runs; None when there is no run, or one of which it is not known: a mean over the others
    would be of other seeds than the rest of its row.
    """
    known = [value for value in values if value is not None]
    return Spread(values=tuple(known)) if known and len(known) == len(values) else None


def shown(figure: Spread | None, text: Callable[[float], str]) -> str:
    """A cell: `mean [95 % over seeds] (lowest to highest)`; the mean alone of one seed, a dash for none."""
    if figure is None:
        return NONE
    cell = text(figure.mean)
    if figure.interval is not None:
        low, high = map(text, figure.interval)
        cell += f" [{low}, {high}] ({text(min(figure.values))} to {text(max(figure.values))})"
    return cell
