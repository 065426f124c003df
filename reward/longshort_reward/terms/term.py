"""The base class of the reward's terms."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from longshort_reward.outcome import Outcome
from longshort_reward.protocol import ROLES, Role

Scores = Mapping[Role, float]
"""One trajectory's unweighted value of a term, by role; a role that is absent gets 0."""


class Term(ABC):
    """A part of the reward. Trainer, metrics, report and viewer go through all terms and name none."""

    name: ClassVar[str]
    """In metrics (`long/reward/<name>`) and, unless it is one of the built-in terms, in the configuration."""
    label: ClassVar[str]
    """Short, for a legend."""
    title: ClassVar[str]
    about: ClassVar[str]
    """One sentence for the report, with the unit of the values."""
    order: ClassVar[int] = 100
    """Terms are added up in this order, so that sums of floats are the same everywhere."""
    roles: ClassVar[tuple[Role, ...]] = ROLES
    """Whose reward it can be part of."""
    joint: ClassVar[bool] = False
    """Both roles always get the same."""
    needs_group: ClassVar[bool] = False
    """Compares the trajectories of one problem: says nothing about a single one."""

    @abstractmethod
    def score(self, group: Sequence[Outcome]) -> list[Scores]:
        """The unweighted values of all trajectories of ONE problem, in the order of `group`."""
