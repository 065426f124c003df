"""Counts the trajectories that failed and stops a run in which too many do. Nothing here knows verl."""

import logging
import math
from collections import Counter, deque

from longshort_reward.errors import UserError

WINDOW = 10
"""Steps, or validations, whose failures are counted together."""

logger = logging.getLogger(__name__)


class FailureCount:
    """The failures of training, or of validation.

    At most `max_share` of the trajectories of `WINDOW` steps may fail: a short series of failures within a long run is
    survived, an error in every trajectory stops the run in its first step.
    """

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self._before: deque[int] = deque(maxlen=WINDOW - 1)
        self._size = 0
        self._now: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}

    def begin(self, size: int) -> None:
        """A step of `size` trajectories begins."""
        self._size = size
        self._now.clear()

    def add(self, kind: str, reason: str, count: int = 1) -> None:
        """Count trajectories of this step that failed.

        Raises:
            UserError: more than the permitted share has failed, or every trajectory of the step.
        """
        if kind not in self._reasons:
            logger.warning("a trajectory failed (%s): %s; later ones of this kind are only counted", kind, reason)
        self._reasons[kind] = reason
        self._now[kind] += count
        now, failed = self._now.total(), self._now.total() + sum(self._before)
        permitted = math.ceil(self._max_share * self._size * WINDOW)
        if failed > permitted or now >= self._size:
            worst = self._now.most_common(1)[0][0]
            counted = f"{now} of the {self._size} trajectories of this step failed"
            window = f"{failed} in {len(self._before) + 1} steps, {permitted} in {WINDOW} steps may"
            remedy = f"{counted} ({window}), mostly ({worst}): {self._reasons[worst]}; mend that, or raise the share"
            raise UserError("longshort.max_failed_share", self._max_share, remedy)

    def end(self) -> Counter[str]:
        """The step ends; how many failed, by kind."""
        self._before.append(self._now.total())
        return Counter(self._now)
