"""Which validated pair of a run is the best, and how sure that is. Nothing here knows verl.

Every validation is kept by problem, a line in `{root}/validations.jsonl`, so that two of them can be compared problem
by problem, also after the run was resumed. The best pair has the highest accuracy-efficiency score (AES) against the
pair that the run began with. A run that did not validate before its first step has no such start, and nor has one whose
start solved nothing: there accuracy decides, and of the same accuracy fewer tokens.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from longshort_reward.protocol import Role

from verl_longshort.base.checkpoint import CheckpointStore, Validation
from verl_longshort.evaluation.metrics import (
    Columns,
    Interval,
    accuracy,
    accuracy_efficiency_score,
    mean,
    score_difference,
    score_interval,
)
from verl_longshort.verl_plugin.run.console import say_validation

FILE = "validations.jsonl"


@dataclass(frozen=True, kw_only=True)
class Validated:
    """A validation by problem: of each sample whether it was correct (0 or 1), and of those that ended its tokens."""

    step: int
    correct: Mapping[str, Sequence[float]]
    tokens: Mapping[str, Sequence[float]]

    @classmethod
    def of(
        cls, step: int, expected: Mapping[str, int], uids: Sequence[str], facts: Mapping[str, Sequence[Any]]
    ) -> "Validated":
        """From what verl has of a validation.

        Args:
            step: the step that was validated.
            expected: how many samples each problem, by uid, should have; those that failed count as incorrect.
            uids: the uid of each sample.
            facts: the facts `problem`, `acc` and `tokens` of each sample.
        """
        names = dict.fromkeys(expected, "")
        correct: dict[str, list[float]] = {}
        tokens: dict[str, list[float]] = {}
        for uid, name in zip(uids, facts["problem"], strict=True):
            names[uid] = name
        for uid, count in expected.items():
            places = [place for place, one in enumerate(uids) if one == uid]
            values = [float(facts["acc"][place]) for place in places]
            # nobody knows which problem it is of which every sample failed
            name = names[uid] or f"failed/{uid}"
            correct.setdefault(name, []).extend(values + [0.0] * (count - len(values)))
            tokens.setdefault(name, []).extend(float(facts["tokens"][place]) for place in places)
        return cls(step=step, correct=correct, tokens=tokens)

    def columns(self, problems: Sequence[str]) -> Columns:
        """Correct answers and lengths of these problems."""
        return [self.correct[name] for name in problems], [self.tokens[name] for name in problems]

    def summary(self, *, intervals: bool = True) -> Validation:
        """Accuracy and tokens, every problem counting the same; with intervals over problems on request."""
        correct, tokens = list(self.correct.values()), [values for values in self.tokens.values() if values]
        return Validation(
            step=self.step,
            accuracy=float(np.mean([np.mean(values) for values in correct])),
            tokens=float(np.mean([np.mean(values) for values in tokens])) if tokens else 0.0,
            accuracy_interval=_bounds(accuracy(correct)) if intervals else None,
            tokens_interval=_bounds(mean(tokens)) if intervals and tokens else None,
        )


def _bounds(interval: Interval) -> tuple[float, float] | None:
    return None if math.isnan(interval.low) else (interval.low, interval.high)


def choose(pairs: Iterable[Validation], start: Validation | None) -> Validation | None:
    """The best of the validated pairs, the earlier one of two that are equal; None when there is none."""

    def merit(one: Validation) -> tuple[float, ...]:
        if start is None or start.accuracy == 0 or start.tokens == 0:
            return one.accuracy, -one.tokens
        base = {"base_accuracy": start.accuracy, "base_length": start.tokens}
        return (accuracy_efficiency_score(one.accuracy, one.tokens, **base),)

    return max(sorted(pairs, key=lambda one: one.step), key=merit, default=None)


def remember(root: Path, validated: Validated) -> None:
    """Append a validation to the run's."""
    line = {"step": validated.step, "correct": validated.correct, "tokens": validated.tokens}
    file = root / FILE
    cut = file.is_file() and not file.read_bytes().endswith(b"\n")  # by a kill
    root.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(("\n" if cut else "") + json.dumps(line) + "\n")


def recall(root: Path, until: int) -> dict[int, Validated]:
    """The run's validations up to the step `until`, by step; the last one where a step was validated again."""
    known: dict[int, Validated] = {}
    if (root / FILE).is_file():
        for line in (root / FILE).read_text(encoding="utf-8").splitlines():
            try:
                one = Validated(**json.loads(line))
            except (ValueError, TypeError):
                continue  # it was cut by a kill
            if one.step <= until:
                known[one.step] = one
    return known


def certainty(known: Mapping[int, Validated], best: int, start: Validation | None) -> dict[str, Any]:
    """How sure the choice of the pair of step `best` is, as `best.json` records it.

    `score` is its AES against the start with an interval, null without a start. `rival` is the validated pair that
    comes closest: its step, what the best one is ahead by with an interval, in AES or else in accuracy, and whether the
    interval holds 0, so that the choice is within noise; null where there is no other.
    """
    if best not in known:
        return {"score": None, "rival": None}
    chosen = known[best]
    base = known.get(start.step) if start is not None and start.accuracy and start.tokens else None
    others = [one for step, one in known.items() if step != best]
    compared = [chosen, *others, *([] if base is None else [base])]
    shared = [
        name for name, tokens in chosen.tokens.items() if tokens and all(one.tokens.get(name) for one in compared)
    ]
    score = None
    if base is not None and best != base.step and shared:
        score = score_interval(*chosen.columns(shared), *base.columns(shared)).to_json()
    if not others or not shared:
        return {"score": score, "rival": None}
    gains = {one.step: _lead(chosen, one, base, shared) for one in others}
    rival = min(gains, key=lambda step: gains[step].value)
    lead = gains[rival]
    within = math.isnan(lead.low) or lead.low <= 0 <= lead.high
    unit = "accuracy" if base is None else "score"
    return {"score": score, "rival": {"step": rival, "lead": lead.to_json(), "in": unit, "within_noise": within}}


def _lead(chosen: Validated, other: Validated, base: Validated | None, shared: Sequence[str]) -> Interval:
    if base is not None:
        return score_difference(chosen.columns(shared), other.columns(shared), base.columns(shared))
    means = [[sum(one.correct[name]) / len(one.correct[name]) for name in shared] for one in (chosen, other)]
    return mean([[mine - theirs] for mine, theirs in zip(*means, strict=True)])


class BestPair:
    """The best validated pair of a run, which `best.json` names.

    Args:
        store: the run's checkpoints.
        start: the validation that others are compared with, where it is known already.
    """

    last: Validated | None = None
    """What the last validation gave."""

    def __init__(self, store: CheckpointStore, start: Validation | None) -> None:
        self._store = store
        self._start = start

    def choose(self, exported: Callable[[int], Mapping[Role, str]]) -> None:
        """Choose again, after a validation; `exported` names the models of a step."""
        assert self.last is not None, "verl ended a validation without metrics"
        remember(self._store.root, self.last)
        if self.last.step == 0:
            self._start = self.last.summary()
        validated = recall(self._store.root, self.last.step)
        pairs = {step: one.summary(intervals=False) for step, one in validated.items()}
        known = self._store.read_best()
        if known is not None:
            pairs.setdefault(known["best"]["step"], Validation(**known["best"]))
        best = choose((one for one in pairs.values() if not one.step or self._store.exists(one.step)), self._start)
        if best is not None:
            chosen = validated[best.step].summary() if best.step in validated else best
            sure = certainty(validated, best.step, self._start)
            self._store.write_best(self._start, chosen, exported(best.step), **sure)

    def say(self) -> None:
        """Say what the last validation gave, if there was one."""
        if self.last is not None:
            known = self._store.read_best() or {}
            best, rival = known.get("best"), known.get("rival") or {}
            noise = rival["step"] if rival.get("within_noise") else None
            say_validation(self.last.summary(), Validation(**best) if best else None, noise)
