"""`compute_score`, the reward of one response in the form verl asks for (`custom_reward_function`).

One response is no group, so only EM and FM are scored here: the other terms compare the trajectories of one problem,
and the longshort trainer computes them where groups exist (`synergy`).
"""

from typing import Any

from pydantic import Field

from longshort_reward.answer import judge_answer
from longshort_reward.errors import UserError
from longshort_reward.grader_pool import Verdict
from longshort_reward.protocol import Role, parse_trajectory
from longshort_reward.settings import PositiveFloat, Settings, Weight
from longshort_reward.terms.format import format_match

_WHERE = "reward.custom_reward_function.reward_kwargs"
_NEED_A_GROUP = ("mu", "rethink", "terms")
_FROM_VERL = ("reward_router_address", "reward_model_tokenizer")
"""What verl's reward managers add on their own when a reward model is on."""


class ScoreSettings(Settings):
    """verl's `reward_kwargs`."""

    eta: Weight = 1.0
    lambda_: Weight = Field(default=0.1, alias="lambda")
    answer_timeout_s: PositiveFloat = 5.0


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | int | float,
    extra_info: dict[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, float]:
    """Score one response: `score = eta EM + lambda FM`.

    Args:
        data_source: of the row; all are scored alike.
        solution_str: the decoded response: a joint trajectory, or the plain solution of a single model, whose
            FM is 0.
        ground_truth: see `match_answer`.
        extra_info: of the row; not used.
        **kwargs: verl's `reward_kwargs`: `eta` (1.0), `lambda` (0.1), `answer_timeout_s` (5).

    Returns:
        Always the same keys, all floats, so that verl can average each: `score`; `acc` and `em`, the answer
        match; `fm`, the format match of the whole trajectory; `format_long` and `format_short`, that of each
        role's turns; `lm`, always 0.0 (see the module); `answer_failed`, 1.0 when the answer could not be
        compared within the limits.

    Raises:
        UserError: an unknown or malformed keyword, named.
        TypeError, ValueError: a ground truth that is no answer.
    """
    for key in _NEED_A_GROUP:
        if key in kwargs:
            remedy = "compares the trajectories of one problem, here is one: set it under longshort.reward"
            raise UserError(f"{_WHERE}.{key}", kwargs[key], remedy)
    settings = ScoreSettings.parse({key: value for key, value in kwargs.items() if key not in _FROM_VERL}, _WHERE)
    verdict = judge_answer(solution_str, ground_truth, timeout_s=settings.answer_timeout_s)
    turns = parse_trajectory(solution_str)
    em, fm = float(verdict is Verdict.MATCH), format_match(turns)
    return {
        "score": settings.eta * em + settings.lambda_ * fm,
        "acc": em,
        "em": em,
        "fm": fm,
        "lm": 0.0,
        "format_long": format_match(turns, Role.LONG),
        "format_short": format_match(turns, Role.SHORT),
        "answer_failed": float(verdict in (Verdict.TIMED_OUT, Verdict.CRASHED)),
    }
