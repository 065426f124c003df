"""What a model cost: parameters that are held to use it, tokens it was trained on, seconds of its training.

Everything is read from what commands leave behind, and what they did not write down is None, never a guess: weights
that were deleted, and runs of versions that counted less.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_longshort.base.model_files import weight_headers
from verl_longshort.base.policy_record import SUMMARY_FILE
from verl_longshort.report.training_log import TrainingLog, read_training_log

_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """Of one training, or of several together."""

    tokens: int | None
    """SFT: that the loss was on, once for each epoch. RL: that were sampled for training, dropped groups included."""
    seconds: float | None
    """Wall clock; of trainings that ran at the same time the sum. RL: of its steps, without start and validations."""


def parameters(header: Mapping[str, Any]) -> int | None:
    """Parameters of the models of an evaluation, from the header of its records; one in two roles counts once.

    None when weights are no longer there, or of a dtype that hides their number.
    """
    folders = {str(model[0]) for model in header["models"].values()}
    counts = [_parameters(Path(folder)) for folder in folders]
    return None if None in counts else sum(count for count in counts if count is not None)


def _parameters(folder: Path) -> int | None:
    weights = weight_headers(folder) if folder.is_dir() else {}
    if not weights or any(dtype not in _BYTES for dtype, _ in weights.values()):
        return None
    return sum(size // _BYTES[dtype] for dtype, size in weights.values())


def sft_cost(folders: Sequence[Path]) -> TrainingCost:
    """Of the fine-tunings that wrote these folders, all together."""
    found = [_json(folder / SUMMARY_FILE) for folder in folders]
    return TrainingCost(
        tokens=_whole(_sum([summary.get("learned_tokens") for summary in found])),
        seconds=_sum([summary.get("seconds") for summary in found]),
    )


def rl_cost(folders: Sequence[Path]) -> TrainingCost:
    """Of the runs of RL whose metrics lie in these folders, all together."""
    logs = [read_training_log(folder) for folder in folders]
    return TrainingCost(
        tokens=_whole(_sum([None if log is None else _over_steps(log, _tokens) for log in logs])),
        seconds=_sum([None if log is None else _over_steps(log, _seconds) for log in logs]),
    )


def _tokens(step: Mapping[str, float]) -> float | None:
    if "training/filter_groups/tokens" in step:
        return step["training/filter_groups/tokens"]
    kind = "pair" if "pair/tokens" in step else "single"
    count, mean = step.get(f"{kind}/trajectories"), step.get(f"{kind}/tokens")
    return None if count is None or mean is None else count * mean


def _seconds(step: Mapping[str, float]) -> float | None:
    return step.get("timing_s/step")


def _over_steps(log: TrainingLog, value: Callable[[Mapping[str, float]], float | None]) -> float | None:
    """The sum over the steps; a line of a validation before the first one is none."""
    steps = [step for number, step in log.by_step.items() if number > 0]
    return _sum([value(step) for step in steps]) if steps else None


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _json(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content if isinstance(content, dict) else {}
