"""The schedule of rounds: which policy learns in which training step.

A round is a fixed number of steps in which the same policies learn. The paper's path L1 L2 S1 L3 S2 L4
(section 5, "alternating") is `[long, long, short, long, short, long]`; `both` lets one batch of trajectories
teach both policies. Nothing here knows verl.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from longshort_reward.compat import StrEnum
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role


class Round(StrEnum):
    """Who learns in a round."""

    LONG = "long"
    SHORT = "short"
    BOTH = "both"

    @property
    def learners(self) -> tuple[Role, ...]:
        """The roles whose weights change in this round, in the order of `ROLES`."""
        return ROLES if self is Round.BOTH else (Role(self.value),)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Rounds of equal length; steps count from 1, rounds from 0."""

    rounds: tuple[Round, ...]
    steps_per_round: int

    @classmethod
    def parse(cls, rounds: Sequence[str], steps_per_round: int) -> "Schedule":
        """Check and build a schedule.

        Raises:
            UserError: an unknown role, an empty schedule, or fewer than one step per round.
        """
        known = [r.value for r in Round]
        if isinstance(rounds, str) or not list(rounds):
            raise UserError("longshort.schedule", rounds, "must be a list of rounds such as [long, short]")
        for name in rounds:
            if name not in known:
                raise UserError("longshort.schedule", name, f"unknown role; use one of {', '.join(known)}")
        if not isinstance(steps_per_round, int) or steps_per_round < 1:
            raise UserError("longshort.steps_per_round", steps_per_round, "must be a whole number from 1 on")
        return cls(rounds=tuple(Round(name) for name in rounds), steps_per_round=steps_per_round)

    @property
    def total_steps(self) -> int:
        """Training steps of the whole run."""
        return len(self.rounds) * self.steps_per_round

    def round_of(self, step: int) -> int:
        """The index of the round that `step` (1 … total_steps) belongs to."""
        return (step - 1) // self.steps_per_round

    def ends_round(self, step: int) -> bool:
        """Whether a round is complete after `step`."""
        return step % self.steps_per_round == 0

    def learners(self, step: int) -> tuple[Role, ...]:
        """The roles that learn in `step`."""
        return self.rounds[self.round_of(step)].learners

    def updates(self, role: Role, until: int | None = None) -> int:
        """Steps from 1 to `until` in which `role` learns; None: of the whole run, the horizon of its learning rate."""
        last = self.total_steps if until is None else until
        return sum(role in self.learners(step) for step in range(1, last + 1))

    def label(self, step: int) -> str:
        """The pair after `step` steps in the paper's notation, e.g. `L2S1`; only whole rounds count."""
        done = self.rounds[: step // self.steps_per_round]
        counts = {role: sum(role in r.learners for r in done) for role in ROLES}
        return f"L{counts[Role.LONG]}S{counts[Role.SHORT]}"

    def round_name(self, step: int) -> str:
        """The round of `step` in the paper's notation: `L2` is the long policy's second, `L1+S1` the first of both."""
        begun = self.rounds[: self.round_of(step) + 1]
        return "+".join(f"{r.value[0].upper()}{sum(r in b.learners for b in begun)}" for r in self.learners(step))

    def agrees_with(self, rounds: Sequence[str], steps_per_round: int, step: int) -> bool:
        """Whether a run that stopped after `step` under another schedule can go on under this one."""
        begun = -(-step // self.steps_per_round)
        same_past = tuple(rounds[:begun]) == tuple(r.value for r in self.rounds[:begun])
        return same_past and steps_per_round == self.steps_per_round
