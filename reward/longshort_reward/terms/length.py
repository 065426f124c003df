"""LM, the length term: shorter is better, within the trajectories of one problem."""

from collections.abc import Sequence

from longshort_reward.outcome import Outcome
from longshort_reward.protocol import ROLES
from longshort_reward.terms.term import Scores, Term


def length_match(lengths: Sequence[int], correct: Sequence[bool], *, gated: bool = True) -> list[float]:
    """The length reward of every trajectory of ONE problem's group, each in [-0.5, 0.5].

    The form is Kimi k1.5's (arXiv 2501.12599, section 2.3.3; paper section 5):
    `0.5 - (length - min) / (max - min)`, and 0 for everybody when all lengths are equal.

    Gated (ours, as in the authors' later work): only correct trajectories compete, so `min` and `max` are
    theirs, and an incorrect one gets exactly 0. An incorrect answer is then not rewarded for brevity, nor does a long
    failure make a correct answer look short. Not gated is the published form: all compete, a correct one gets
    its value and an incorrect one `min(0, value)`.

    Args:
        lengths: tokens of the joint trajectories (both roles' own tokens), shape (group,).
        correct: whether each answer is correct, shape (group,).
        gated: see above.

    Raises:
        ValueError: the two sequences differ in size, or a length is negative.
    """
    if len(lengths) != len(correct):
        raise ValueError(f"lengths has {len(lengths)} entries, correct has {len(correct)}: give one of each")
    if any(length < 0 for length in lengths):
        raise ValueError(f"lengths = {list(lengths)}: a length in tokens cannot be negative")
    rivals = [length for length, solved in zip(lengths, correct, strict=True) if solved or not gated]
    if not rivals or min(rivals) == max(rivals):
        return [0.0] * len(lengths)
    shortest, spread = min(rivals), max(rivals) - min(rivals)
    values = [0.5 - (length - shortest) / spread for length in lengths]
    unsolved = [0.0 if gated else min(0.0, value) for value in values]
    return [value if solved else other for value, other, solved in zip(values, unsolved, correct, strict=True)]


class LengthMatch(Term):
    """`length_match`, gated on correctness. Joint (paper, section 5): the roles spend the tokens together."""

    name = "lm"
    label = "LM"
    title = "Length match (LM)"
    about = "From -0.5 (longest correct trajectory of the group) to 0.5 (shortest); before its weight."
    order = 2
    joint = True
    needs_group = True

    def score(self, group: Sequence[Outcome]) -> list[Scores]:
        values = length_match([outcome.tokens for outcome in group], [outcome.correct for outcome in group])
        return [dict.fromkeys(ROLES, value) for value in values]
