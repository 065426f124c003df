"""The synergy reward of Long⊗Short, usable from any verl project; imports no verl, torch or ray.

* `match_answer` (EM), `format_match` (FM), `length_match` (LM): the terms.
* `synergy_reward`: a group of `Outcome`s of one problem to a `RoleReward` per trajectory and role.
* `RewardWeights`, `Ramp`: the weights, constant or changing during training.
* `compute_score`: one response, as verl's `custom_reward_function`.
"""

from longshort_reward.answer import answer_failures, final_answer, judge_answer, match_answer
from longshort_reward.compute_score import compute_score
from longshort_reward.format import format_match
from longshort_reward.judges import Verdict
from longshort_reward.length import length_match
from longshort_reward.schedule import Ramp, RewardWeights
from longshort_reward.synergy import Outcome, RoleReward, direct_accuracy, is_neutral, synergy_reward

__version__ = "0.1.0"

__all__ = [
    "Outcome",
    "Ramp",
    "RewardWeights",
    "RoleReward",
    "Verdict",
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
