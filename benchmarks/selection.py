"""Which thoughts each rule keeps, against the truth that the generator of the miniature or the prose world tells.

Reads weighed chains of a world (several files are taken together). A thought is worth keeping when it holds
the work on a list, which the base model gets wrong unless it is spelled out. The first thought is left out of
the precision: every rule keeps it. In brackets 95 % intervals (Wilson). A second table has the mean of each measure by
the kind of thought that the generator names, the first thought left out: M, how far surprisals and entropy fall, and
what counterfactual resampling says, where it was done.

    longshort world --out world; longshort tiny-base --out base
    longshort chunk chains=world longshort.input=world/chains.jsonl longshort.output=thoughts.jsonl
    longshort weigh longshort.input=thoughts.jsonl longshort.output=weighed.jsonl longshort.model=base
    python benchmarks/selection.py weighed.jsonl
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from longshort_reward.errors import UserError
from rich.console import Console
from rich.table import Table

from verl_longshort.data.importance import wilson
from verl_longshort.data.records import RolloutCounts, Weighed, read_stage
from verl_longshort.data.selection import answer_entropy, select

CHOICES: dict[str, dict[str, Any]] = {
    "m": {"rule": "m"},
    "confident-m": {"rule": "confident-m"},
    "confident-m 0.7": {"rule": "confident-m", "confidence": 0.7},
    "surprise": {"rule": "surprise"},
    "answer": {"rule": "answer"},
    "entropy": {"rule": "entropy"},
    "random": {"rule": "random"},
}
PLACES = ("the only one", "first of two", "second of two")


@dataclass(kw_only=True)
class Outcome:
    """What one rule has done with all chains."""

    correct: int = 0
    incorrect: int = 0
    found: Counter[str] = field(default_factory=Counter)
    there: Counter[str] = field(default_factory=Counter)
    kept_tokens: int = 0
    tokens: int = 0

    def add(self, record: Weighed, keep: list[bool]) -> None:
        hard = hard_thoughts(record)
        for place, index in zip(_places(len(hard)), hard, strict=True):
            self.there[place] += 1
            self.found[place] += keep[index]
        for index, (kept, thought) in enumerate(zip(keep, record.thoughts, strict=True)):
            self.tokens += thought.tokens
            self.kept_tokens += thought.tokens * kept
            if index and kept:
                self.correct += index in hard
                self.incorrect += index not in hard

    def cells(self) -> Iterator[str]:
        yield _share(self.correct, self.correct + self.incorrect)
        yield _share(self.found.total(), self.there.total())
        for place in PLACES:
            yield _share(self.found[place], self.there[place])
        yield f"{self.kept_tokens / self.tokens:.0%}"


def hard_thoughts(record: Weighed) -> list[int]:
    """Indexes of the thoughts that hold a hard step's own work."""
    labels = record.labels or [thought.to_record() for thought in record.thoughts]
    hard = [label["text"] for label in labels if label["kind"] == "hard"]
    found = {index for text in hard for index, whole in enumerate(record.texts) if text in whole}
    return sorted(found)


def _places(count: int) -> tuple[str, ...]:
    return {0: (), 1: PLACES[:1], 2: PLACES[1:]}[count]


def _share(part: int, whole: int) -> str:
    if not whole:
        return "–"
    low, high = wilson(part, whole)
    return f"{part / whole:.2f} [{low:.2f}–{high:.2f}]"


Measure = Callable[[Weighed, int], float | None]
"""Of a thought by its index; None where the record does not say."""


def _before(record: Weighed, index: int) -> RolloutCounts:
    return record.thoughts[index - 1] if index else record.p_start


def fall_of_surprise(record: Weighed, index: int) -> float:
    return float(np.median(_before(record, index).surprisals) - np.median(record.thoughts[index].surprisals))


def fall_of_forced(record: Weighed, index: int) -> float | None:
    before, after = _before(record, index).forced, record.thoughts[index].forced
    if before is None or after is None:
        return None
    return float(np.median(before.surprisals) - np.median(after.surprisals))


def fall_of_entropy(record: Weighed, index: int) -> float | None:
    before, after = _before(record, index).answers, record.thoughts[index].answers
    return answer_entropy(before) - answer_entropy(after) if before and after else None


def _resampled(key: str) -> Measure:
    def measure(record: Weighed, index: int) -> float | None:
        found: float | None = record.thoughts[index].more.get("resampled", {}).get(key)
        return found

    return measure


MEASURES: dict[str, Measure] = {
    "M": lambda record, index: record.thoughts[index].m,
    "p gained": lambda record, index: record.thoughts[index].rate - _before(record, index).rate,
    "surprise falls": fall_of_surprise,
    "forced falls": fall_of_forced,
    "entropy falls": fall_of_entropy,
    "resampled, divergence": _resampled("divergence"),
    "resampled, gain": _resampled("gain"),
}


def by_kind(records: Sequence[Weighed]) -> Table:
    """Mean of each measure, and of how many thoughts, by the generator's kind."""
    found: dict[str, list[tuple[Weighed, int]]] = defaultdict(list)
    for record in records:
        for index, text in enumerate(record.texts[1:], start=1):
            kinds = [label["kind"] for label in record.labels or () if label["text"] in text]
            if kinds:
                found[kinds[0]].append((record, index))
    table = Table("kind", "thoughts", *MEASURES)
    for kind, places in sorted(found.items()):
        cells = []
        for measure in MEASURES.values():
            values = [value for place in places if (value := measure(*place)) is not None]
            cells.append(f"{np.mean(values):.2f} ({len(values)})" if values else "–")
        table.add_row(kind, str(len(places)), *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Precision and recall of the rules; see the module's docstring.")
    parser.add_argument("files", nargs="+", type=Path)
    records = [record for file in parser.parse_args().files for record in read_stage(file, Weighed, key="files")]
    table = Table("rule", "precision", "recall", *PLACES, "tokens kept", title=f"{len(records)} chains")
    for name, choice in CHOICES.items():
        outcome = Outcome()
        try:
            for record in records:
                outcome.add(record, select(record, **choice))
        except UserError:
            # The records lack what the rule reads, as older ones do.
            continue
        table.add_row(name, *outcome.cells())
    console = Console(width=140)
    console.print(table)
    console.print(by_kind(records))


if __name__ == "__main__":
    main()
