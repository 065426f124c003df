"""The rethink credit (ours): what asking for another thought was worth."""

from collections.abc import Sequence

from longshort_reward.outcome import SINGLE_ROLE, Outcome
from longshort_reward.protocol import Role
from longshort_reward.terms.term import Scores, Term


class RethinkCredit(Term):
    """Pays the short role for asking again when the answer is correct and answering at once would have failed.

    The latter is the failure rate of the group's trajectories that did not ask. The paper never says when
    `</rethink>` is right; without a credit, LM alone pushes it out. A model that writes both roles' turns alone asks
    itself, and is paid the same.
    """

    name = "rethink"
    label = "rethink"
    title = "Rethink credit"
    about = "Failure rate of answering at once, for correct trajectories that asked again; before its weight."
    order = 3
    roles = (Role.SHORT,)
    needs_group = True

    def score(self, group: Sequence[Outcome]) -> list[Scores]:
        credit = 1.0 - direct_accuracy(group)
        return [
            {SINGLE_ROLE if one.alone else Role.SHORT: credit if one.correct and one.rethinks > 0 else 0.0}
            for one in group
        ]


def direct_accuracy(group: Sequence[Outcome]) -> float:
    """Accuracy of the trajectories that answered without asking again; of the whole group when all asked."""
    direct = [o.correct for o in group if o.rethinks == 0] or [o.correct for o in group]
    return sum(direct) / len(direct) if direct else 0.0
