"""The synergy reward of Long⊗Short, usable from any RL project; imports no verl, torch or ray.

* `match_answer` (EM), `format_match` (FM), `length_match` (LM): the terms as functions; `terms` has them as objects.
* `synergy_reward`: a group of `Outcome`s of one problem to a `RoleReward` per trajectory and role.
* `RewardWeights`, `Ramp`: the weights, constant or changing during training; `Term`: the base class of your own terms.
* `compute_score`: one response, as verl's `custom_reward_function`.
"""

from longshort_reward.answer import answer_failures, final_answer, judge_answer, match_answer
from longshort_reward.compute_score import compute_score
from longshort_reward.grader_pool import Verdict
from longshort_reward.outcome import Outcome
from longshort_reward.synergy import RoleReward, is_neutral, synergy_reward
from longshort_reward.terms import all_terms
from longshort_reward.terms.format import format_match
from longshort_reward.terms.length import length_match
from longshort_reward.terms.rethink import direct_accuracy
from longshort_reward.terms.term import Term
from longshort_reward.weights import Ramp, RewardWeights

__version__ = "0.1.0"

__all__ = [
    "Outcome",
    "Ramp",
    "RewardWeights",
    "RoleReward",
    "Term",
    "Verdict",
    "all_terms",
    "answer_failures",
    "compute_score",
    "direct_accuracy",
    "final_answer",
    "format_match",
    "is_neutral",
    "judge_answer",
    "length_match",
    "match_answer",
    "synergy_reward",
]
