"""The reward of Long⊗Short as reward functions of TRL's `GRPOTrainer`.

TRL gives a reward function lists of the same length: `completions`, `completion_ids`, and one for each column of the
data set, here `ground_truth`. It wants one number per completion.
"""

from collections.abc import Sequence
from typing import Any

from longshort_reward import Outcome, RewardWeights, compute_score, synergy_reward
from longshort_reward.outcome import SINGLE_ROLE

WEIGHTS = RewardWeights.from_config(
    {"eta": 1.0, "lambda": 0.1, "mu": {"start": 0.0, "end": 0.2, "begin_step": 0, "end_step": 100}}
)
"""EM, FM, and LM, which grows over the first 100 steps."""

Completion = str | list[dict[str, str]]
"""A text, or the messages of an answer to a `prompt` of messages."""


def answer_and_format(completions: Sequence[Completion], ground_truth: Sequence[str], **_: Any) -> list[float]:
    """`eta EM + lambda FM` of each completion by itself."""
    pairs = zip(completions, ground_truth, strict=True)
    return [compute_score("trl", _text(completion), truth)["score"] for completion, truth in pairs]


def synergy(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    completion_ids: Sequence[Sequence[int]],
    ground_truth: Sequence[str],
    trainer_state: Any,
    **_: Any,
) -> list[float]:
    """The reward with the length term, which compares the completions of one problem.

    Raises ValueError when completions of a problem are missing here: its group is spread over several processes.
    """
    outcomes = [
        _outcome(_text(completion), truth, len(ids))
        for completion, truth, ids in zip(completions, ground_truth, completion_ids, strict=True)
    ]
    groups: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(str(prompt), []).append(row)
    if len(sizes := {len(rows) for rows in groups.values()}) > 1:
        raise ValueError(
            f"groups of {sorted(sizes)} completions: one is spread over several processes; set "
            "per_device_train_batch_size to a multiple of num_generations"
        )
    rewards = [0.0] * len(outcomes)
    for rows in groups.values():
        scored = synergy_reward([outcomes[row] for row in rows], WEIGHTS, trainer_state.global_step)
        for row, of_roles in zip(rows, scored, strict=True):
            rewards[row] = of_roles[SINGLE_ROLE].total
    return rewards


def _text(completion: Completion) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"]


def _outcome(text: str, truth: str, tokens: int) -> Outcome:
    scores = compute_score("trl", text, truth)
    return Outcome(
        correct=scores["em"] == 1.0,
        format_ok={SINGLE_ROLE: scores["fm"] == 1.0},
        tokens=tokens,
        rethinks=0,
        fault_role=None,
        stop_reason="",
    )
