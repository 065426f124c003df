"""FM, the format term: did the turns keep to the tag protocol?"""

from collections.abc import Sequence

from longshort_reward.outcome import Outcome
from longshort_reward.protocol import ROLES, Closing, Role, Turn
from longshort_reward.terms.term import Scores, Term


def format_match(turns: Sequence[Turn], role: Role | str | None = None) -> float:
    """1.0 when the turns are well formed, else 0.0 (paper section 5).

    With a `role`, only that role's own turns count, so that no role pays for the other's slip (ours); a role
    without a turn gets 0.0. Without one, the whole trajectory is judged: every turn is well formed, long and
    short alternate from long on, and the last turn, and only it, closes with `</answer>`.
    """
    if role is not None:
        speaker = Role(role)
        own = [turn for turn in turns if turn.role is speaker]
        return float(bool(own) and all(turn.ok for turn in own))
    ordered = all(turn.role is (Role.LONG, Role.SHORT)[i % 2] for i, turn in enumerate(turns))
    answers = [i for i, turn in enumerate(turns) if turn.closing is Closing.ANSWER]
    return float(ordered and all(turn.ok for turn in turns) and answers == [len(turns) - 1])


class FormatMatch(Term):
    """1 for a role whose own turns are all well formed.

    Each role's own (ours): format is wholly in the hands of the one who writes the turn, so sharing it would only
    add noise to the partner's reward.
    """

    name = "fm"
    label = "FM"
    title = "Format match (FM)"
    about = "Share of trajectories whose own turns keep to the protocol."
    order = 1

    def score(self, group: Sequence[Outcome]) -> list[Scores]:
        return [{role: float(outcome.format_ok.get(role, False)) for role in ROLES} for outcome in group]
