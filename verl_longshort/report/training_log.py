"""The metrics of a training run, step by step, from the files that verl's file logger wrote."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longshort_reward.protocol import ROLES, Role

from verl_longshort.base.metrics_files import metrics_files


@dataclass(frozen=True, kw_only=True)
class RoundSpan:
    """The steps of one round."""

    label: str
    """In the paper's notation: `L2` is the long policy's second round."""
    learners: tuple[Role, ...]
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class TrainingLog:
    """Metrics by step; of a resumed run the last start's where two overlap."""

    by_step: Mapping[int, Mapping[str, float]]

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Steps at which `key` was logged, and its values."""
        steps = [step for step, values in self.by_step.items() if key in values]
        return steps, [self.by_step[step][key] for step in steps]

    def rounds(self) -> list[RoundSpan]:
        """The rounds so far, in order."""
        spans: dict[int, list[int]] = {}
        for step, values in self.by_step.items():
            if "training/round" in values:
                spans.setdefault(int(values["training/round"]), []).append(step)
        counts = dict.fromkeys(ROLES, 0)
        return [self._span(spans[number], counts) for number in sorted(spans)]

    def _span(self, steps: list[int], counts: dict[Role, int]) -> RoundSpan:
        learners = tuple(role for role in ROLES if any(f"{role}/own_tokens" in self.by_step[step] for step in steps))
        for role in learners:
            counts[role] += 1
        label = "+".join(f"{role.value[0].upper()}{counts[role]}" for role in learners)
        return RoundSpan(label=label, learners=learners, first=min(steps), last=max(steps))


def read_training_log(folder: Path) -> TrainingLog | None:
    """The log of the training run whose checkpoints are in `folder`; None when there is none."""
    by_step: dict[int, dict[str, float]] = {}
    for file in metrics_files(folder):
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
            # A line without its end is what a killed process was writing.
            if line.endswith("\n") and line.strip():
                entry = json.loads(line)
                by_step[entry["step"]] = {**by_step.get(entry["step"], {}), **_numbers(entry["data"])}
    if not by_step:
        return None
    return TrainingLog(by_step=dict(sorted(by_step.items())))


def mean_series(series: Sequence[tuple[list[int], list[float]]]) -> tuple[list[int], list[float]]:
    """Steps at which any of the series has a value, and the mean of those that have one."""
    by_step: dict[int, list[float]] = {}
    for steps, values in series:
        for step, value in zip(steps, values, strict=True):
            by_step.setdefault(step, []).append(value)
    steps = sorted(by_step)
    return steps, [sum(by_step[step]) / len(by_step[step]) for step in steps]


def _numbers(data: Mapping[str, object]) -> dict[str, float]:
    return {key: float(value) for key, value in data.items() if isinstance(value, int | float)}
