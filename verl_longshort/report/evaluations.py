"""The evaluations of a run: their records found below a folder, and their numbers."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from verl_longshort.base.files import Record
from verl_longshort.base.journal import read_record_file
from verl_longshort.evaluation.metrics import Interval
from verl_longshort.evaluation.summary import Summary, summarise
from verl_longshort.evaluation.table import problems_of, score

HEADER_KEYS = {"name", "mode", "data", "benchmarks", "problems", "samples"}
"""What the first line of an evaluation's records has, and no other file's."""
_LONG_CHAIN = "long-CoT"
"""What the recipes call it; a reasoning model writes its own in mode plain."""
_NEVER_BELOW = re.compile(r"global_step_\d+|logs|progress|stages|world")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation, finished or not."""

    file: Path
    header: Mapping[str, Any]
    records: Sequence[Record]

    @property
    def name(self) -> str:
        """As in the table."""
        return str(self.header["name"])

    @property
    def data(self) -> str:
        """Names of the benchmarks: the evaluations that can be compared have the same."""
        return str(self.header["data"])

    @property
    def expected(self) -> int:
        """Answers that the evaluation has when it is finished."""
        return int(self.header["problems"]) * int(self.header["samples"])

    @property
    def is_complete(self) -> bool:
        """Whether all answers are there."""
        return len(self.records) >= self.expected

    @property
    def is_alone(self) -> bool:
        """Whether one model answered, not a pair."""
        return self.header["mode"] != "pair"

    @property
    def rounds(self) -> tuple[int, int] | None:
        """Rounds of long and of short that the pair has had, from its name; None for other names."""
        return rounds_of(self.name)

    @cached_property
    def summary(self) -> Summary:
        """Its numbers, over the answers that are there."""
        return summarise(self.name, self.records)

    def score(self, base: "Evaluation | None") -> Interval | None:
        """AES against `base`; None where it has no meaning: no base, other problems, a base without a
        correct answer."""
        if base is None or problems_of(self.header, self.records) != problems_of(base.header, base.records):
            return None
        return score(self.records, base.records)


def rounds_of(name: str) -> tuple[int, int] | None:
    """Rounds of long and of short in the paper's notation, such as `L2S1`; None for other names."""
    found = re.fullmatch(r"L(\d+)S(\d+)", name)
    return (int(found[1]), int(found[2])) if found else None


def find_evaluations(root: Path) -> list[Evaluation]:
    """All evaluations below `root`, in the order of the table: those that are no rounds, then the rounds."""
    found = []
    for file in sorted(root.rglob("*.jsonl")):
        if _is_evaluation(file, root):
            header, records = read_record_file(file)
            found.append(Evaluation(file=file, header=header, records=records))
    return sorted((one for one in found if one.records), key=_place)


def choose_bases(evaluations: Sequence[Evaluation], name: str | None) -> dict[str, Evaluation]:
    """By data set the row that AES is relative to: the one called `name`; without a name the long chain of
    thought, else L0S0, else the first. A data set that has none with that name is left out.
    """
    fitting = [one for one in evaluations if name in (None, one.name)]
    ranked = sorted(fitting, key=lambda one: 0 if _is_long_chain(one) else 1 if one.rounds == (0, 0) else 2)
    # Of each data set the first one is entered last.
    return {one.data: one for one in reversed(ranked)}


def _is_evaluation(file: Path, root: Path) -> bool:
    if any(_NEVER_BELOW.fullmatch(part) for part in file.relative_to(root).parts):
        return False
    with file.open("rb") as lines:
        first = lines.readline()
    try:
        header = json.loads(first)
    except ValueError:
        return False
    return isinstance(header, dict) and header.keys() >= HEADER_KEYS


def _place(one: Evaluation) -> tuple[bool, int, int, bool, str]:
    long, short = one.rounds or (0, 0)
    return (one.rounds is not None, long + short, long, not _is_long_chain(one), one.name)


def _is_long_chain(one: Evaluation) -> bool:
    return one.name == _LONG_CHAIN or one.header["mode"] == "long_cot"
