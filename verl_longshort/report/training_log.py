"""The metrics of a training run, step by step, from the files that verl's file logger wrote."""

import json
from collections import Counter, defaultdict
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
        by_round: dict[int, list[int]] = defaultdict(list)
        for step, values in self.by_step.items():
            if "training/round" in values:
                by_round[int(values["training/round"])].append(step)
        spans = []
        counts: Counter[Role] = Counter()
        for _, steps in sorted(by_round.items()):
            logged = {key for step in steps for key in self.by_step[step]}
            learners = tuple(role for role in ROLES if f"{role}/own_tokens" in logged)
            counts.update(learners)
            label = "+".join(f"{role.value[0].upper()}{counts[role]}" for role in learners)
            spans.append(RoundSpan(label=label, learners=learners, first=min(steps), last=max(steps)))
        return spans


def read_training_log(folder: Path) -> TrainingLog | None:
    """The log of the training run whose checkpoints are in `folder`; None when there is none."""
    by_step: dict[int, dict[str, float]] = defaultdict(dict)
    for file in metrics_files(folder):
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
            # A line without its end is what a killed process was writing.
            if line.endswith("\n") and line.strip():
                entry = json.loads(line)
                numbers = {key: float(value) for key, value in entry["data"].items() if isinstance(value, int | float)}
                by_step[entry["step"]].update(numbers)
    return TrainingLog(by_step=dict(sorted(by_step.items()))) if by_step else None


def mean_series(series: Sequence[tuple[list[int], list[float]]]) -> tuple[list[int], list[float]]:
    """Steps at which any of the series has a value, and the mean of those that have one."""
    by_step: dict[int, list[float]] = defaultdict(list)
    for steps, values in series:
        for step, value in zip(steps, values, strict=True):
            by_step[step].append(value)
    steps = sorted(by_step)
    return steps, [sum(by_step[step]) / len(by_step[step]) for step in steps]
