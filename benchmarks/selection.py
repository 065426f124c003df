"""Which thoughts each rule keeps, against the truth that the generator of the miniature world tells.

Reads weighed chains of the world (several files are taken together). A thought is worth keeping when it holds
the work on a list, which the base model gets wrong unless it is spelled out. The first thought is left out of
the precision: every rule keeps it. In brackets 95 % intervals (Wilson).

    longshort world --out world; longshort tiny-base --out base
    longshort chunk chains=world longshort.input=world/chains.jsonl longshort.output=thoughts.jsonl
    longshort weigh longshort.input=thoughts.jsonl longshort.output=weighed.jsonl longshort.model=base
    python benchmarks/selection.py weighed.jsonl
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from verl_longshort.data.importance import wilson
from verl_longshort.data.records import Weighed, read_stage
from verl_longshort.data.selection import select

CHOICES: dict[str, dict[str, Any]] = {
    "m": {"rule": "m"},
    "confident-m": {"rule": "confident-m"},
    "confident-m 0.7": {"rule": "confident-m", "confidence": 0.7},
    "surprise": {"rule": "surprise"},
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Precision and recall of the rules; see the module's docstring.")
    parser.add_argument("files", nargs="+", type=Path)
    records = [record for file in parser.parse_args().files for record in read_stage(file, Weighed, key="files")]
    table = Table("rule", "precision", "recall", *PLACES, "tokens kept", title=f"{len(records)} chains")
    for name, choice in CHOICES.items():
        outcome = Outcome()
        for record in records:
            outcome.add(record, select(record, **choice))
        table.add_row(name, *outcome.cells())
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
