"""EM, the answer match, as a term; how answers are compared: `longshort_reward.answer`."""

from collections.abc import Sequence

from longshort_reward.outcome import Outcome
from longshort_reward.protocol import ROLES
from longshort_reward.terms.term import Scores, Term


class AnswerMatch(Term):
    """1 for a correct final answer. Joint (paper, section 5): the roles solve the problem together."""

    name = "em"
    label = "EM"
    title = "Answer match (EM)"
    about = "Share of trajectories with a correct answer."
    order = 0
    joint = True

    def score(self, group: Sequence[Outcome]) -> list[Scores]:
        return [dict.fromkeys(ROLES, float(outcome.correct)) for outcome in group]
