"""Tells a trajectory as events while it is generated."""

from collections.abc import Callable

from longshort_reward.protocol import Role, Turn

from verl_longshort.core.trajectory import Trajectory
from verl_longshort.core.watching import Watcher
from verl_longshort.serve.events import Answered, Event, TextDelta, TurnEnded, TurnStarted
from verl_longshort.serve.reading import TurnReader


class Narrator(Watcher):
    """Tells one trajectory as events."""

    def __init__(self, tell: Callable[[Event], None], max_turns: int) -> None:
        self._tell = tell
        self._max_turns = max_turns
        self._turns: list[TurnEnded] = []
        self._reader = TurnReader(Role.LONG)

    def turn_begins(self, role: Role) -> None:
        """See `Watcher`."""
        number = len(self._turns) + 1
        self._reader = TurnReader(role)
        self._tell(TurnStarted(role=role, number=number, last=number >= self._max_turns))

    def turn_grows(self, role: Role, text: str) -> None:
        """See `Watcher`."""
        if new := self._reader.feed(text):
            self._tell(TextDelta(role=role, text=new))

    def turn_ends(self, turn: Turn, tokens: int) -> None:
        """See `Watcher`."""
        if new := self._reader.finish(turn.text):
            self._tell(TextDelta(role=turn.role, text=new))
        self._turns.append(
            TurnEnded(
                role=turn.role,
                number=len(self._turns) + 1,
                text=self._reader.text,
                tokens=tokens,
                closing=turn.closing,
                fault=turn.fault,
            )
        )
        self._tell(self._turns[-1])

    def answered(self, trajectory: Trajectory, seed: int, seconds: float) -> Answered:
        """The end."""
        state, last = trajectory.state, self._turns[-1]
        assert state.stop_reason is not None, "the trajectory has ended"
        return Answered(
            answer=last.text if last.role is Role.SHORT else "",
            stop_reason=state.stop_reason,
            fault_role=state.fault_role,
            turns=tuple(self._turns),
            tokens=state.tokens,
            prompt_tokens={role: len(view.prompt_ids) for role, view in trajectory.views.items()},
            rethinks=state.rethinks,
            seed=seed,
            seconds=seconds,
        )
