"""Weighed chains as the report looks at them: read, checked, with the choice of a rule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from longshort_reward.errors import UserError

from verl_longshort.data.importance import Floats
from verl_longshort.data.records import Weighed, read_stage
from verl_longshort.data.selection import select

_KEY = "files"
_NUMBERS = ("p", "p_low", "p_high", "m", "delta", "bound", "flip")


@dataclass(frozen=True, kw_only=True)
class WeighedChain:
    """One chain of n thoughts; a prefix is what stands before or between them, so there are n + 1."""

    record: Weighed
    keep: tuple[bool, ...]
    """The rule's choice for each thought."""
    labels: tuple[str, ...] | None
    """The generator's kind of each thought; None where the record has no labels, or others."""

    @property
    def problem(self) -> str:
        """Chains of one problem are not independent; this tells which belong together."""
        return self.record.problem

    @cached_property
    def m(self) -> Floats:
        """M of each thought, [n]."""
        return np.array([thought.m for thought in self.record.thoughts], dtype=float)

    @cached_property
    def lengths(self) -> Floats:
        """Tokens of each prefix, [n + 1]; the first is 0, the last the whole chain."""
        return np.cumsum([0, *(thought.tokens for thought in self.record.thoughts)], dtype=float)

    @cached_property
    def accuracies(self) -> Floats:
        """p-hat of each prefix, [n + 1]; the first is that of the problem alone."""
        return np.array([self.record.p_start.rate, *(thought.p for thought in self.record.thoughts)])

    @property
    def correct(self) -> bool:
        """Whether the whole chain leads to the correct answer in at least half of its rollouts."""
        return bool(self.accuracies[-1] >= 0.5)


def read_chains(files: Sequence[str | Path], *, rule: str) -> list[WeighedChain]:
    """The records of all files, in order, with what `rule` keeps.

    Raises:
        UserError: no file, a record that `weigh` would not have written, an unknown rule.
    """
    chains = []
    for file in files:
        for record in read_stage(file, Weighed, key=_KEY):
            if fault := _fault(record):
                raise UserError(_KEY, f"{file}, record {record.id}", fault)
            choice = tuple(select(record, rule=rule))
            chains.append(WeighedChain(record=record, keep=choice, labels=label_kinds(record)))
    return chains


def label_kinds(record: Weighed) -> tuple[str, ...] | None:
    """The generator's kinds under each thought, joined by " + " where there are several.

    None where the record has no labels or they are not the chain.
    """
    labels = record.labels
    if not isinstance(labels, list):
        return None
    spans = _spans([str(label.get("text", "")) for label in labels], record.chain)
    places = _spans(record.texts, record.chain)
    if not spans or not places:
        return None
    named = list(zip((str(label.get("kind", "")) for label in labels), spans, strict=True))
    kinds = [[kind for kind, (first, end) in named if first < stop and end > start] for start, stop in places]
    return tuple(" + ".join(dict.fromkeys(names)) for names in kinds)


def _spans(texts: Sequence[str], chain: str) -> list[tuple[int, int]]:
    """Where each text stands in the chain, one behind the other; [] when one is not there."""
    spans: list[tuple[int, int]] = []
    end = 0
    for text in texts:
        start = chain.find(text, end)
        if start < 0:
            return []
        end = start + len(text)
        spans.append((start, end))
    return spans


def _fault(record: Weighed) -> str | None:
    if not all(math.isfinite(getattr(thought, name)) for thought in record.thoughts for name in _NUMBERS):
        return "has a number that is not finite: weigh it again"
    if not all(counts.samples for counts in (record.p_start, *record.thoughts)):
        return "has a prefix without rollouts: weigh it again"
    if not any(thought.tokens for thought in record.thoughts):
        return "has no tokens: weigh it again with its tokenizer"
    return None
