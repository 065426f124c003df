"""What a training run says on its console: a line for each step, validation and checkpoint. Nothing here knows verl."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verl_longshort.base.checkpoint import Validation
from verl_longshort.base.console import say
from verl_longshort.base.progress import Pace, clock, report

Metrics = Mapping[str, Any]

PAIR = (
    ("accuracy", "{:>6.1%}", ("pair/accuracy",)),
    ("tokens", "{:>6.1f}", ("pair/tokens",)),
    ("reward", "{:.3f}", ("long/reward/total", "short/reward/total")),
    ("rethink", "{:>6.1%}", ("pair/rethink_rate",)),
)
"""Label, format and metrics of each figure of a step; the pair's rewards are the long and the short role's."""

SINGLE = (
    ("accuracy", "{:>6.1%}", ("single/accuracy",)),
    ("tokens", "{:>6.1f}", ("single/tokens",)),
    ("reward", "{:.3f}", ("single/reward/total",)),
)


class StepLines:
    """Says how the steps of a run of `total` steps went, the first of which follows `done`."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._pace = Pace()
        self._begin = time.monotonic()

    def begin(self, done: int) -> None:
        """The time left is counted from here."""
        self._begin = time.monotonic()
        self._pace.seconds_left(0.0, done / self._total)

    def step(self, step: int, metrics: Metrics, figures: Any, label: str = "") -> None:
        """Say what a step gave."""
        left = self._pace.seconds_left(time.monotonic() - self._begin, step / self._total)
        report(step, self._total, f"step {step}/{self._total}")
        say(step_line(step, self._total, metrics, figures, label, left))


def step_line(step: int, total: int, metrics: Metrics, figures: Any, label: str, left: float | None) -> str:
    """`step  12/120  L1     accuracy  61.3%  …  14.2 s  25:40 left`; a figure that was not measured is left out."""
    parts = [f"step {step:>{len(str(total))}}/{total}", *([f"{label:<5}"] if label else [])]
    for name, form, keys in figures:
        values = [form.format(metrics[key]) for key in keys if key in metrics]
        parts += [f"{name} {' / '.join(values)}"] if values else []
    if "timing_s/step" in metrics:
        parts.append(f"{metrics['timing_s/step']:.1f} s")
    if left is not None and step < total:
        parts.append(f"{clock(left)} left")
    return "  ".join(parts)


def say_validation(now: Validation, best: Validation | None, rival: int | None = None) -> None:
    """Say what a validation gave, and which one is the best so far.

    `rival` is the step of a pair that the best one cannot be told from.
    """
    accuracy = _with_interval(now.accuracy, now.accuracy_interval, "{:.1%}")
    tokens = _with_interval(now.tokens, now.tokens_interval, "{:.1f}")
    so_far = "" if best is None else "; the best so far" if best.step == now.step else f"; best: step {best.step}"
    so_far += "" if rival is None else f", within noise of step {rival}"
    say(f"validation after step {now.step}: accuracy {accuracy}, {tokens} tokens{so_far}")


def _with_interval(value: float, interval: tuple[float, float] | None, form: str) -> str:
    bounds = "" if interval is None else " [" + ", ".join(form.format(bound) for bound in interval) + "]"
    return form.format(value) + bounds


def say_checkpoint(folder: Path, seconds: float) -> None:
    """Say that a checkpoint is complete."""
    say(f"checkpoint in {seconds:.1f} s: {folder}")
