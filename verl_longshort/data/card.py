"""What a data stage says at its end: a table, and the card of a data set.

A card says how the data were made, how many records there are, and what was dropped and why.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from longshort_reward.protocol import Role
from pydantic_core import to_jsonable_python
from rich.box import SIMPLE_HEAD
from rich.table import Table

from verl_longshort.base.files import write_json, write_text
from verl_longshort.base.rejected import Rejected
from verl_longshort.data.records import ColdStartTrajectory


@dataclass(frozen=True, kw_only=True)
class Card:
    """Counts of one preparation."""

    title: str
    counts: Mapping[str, int]
    dropped: Sequence[Rejected]
    made_with: Mapping[str, Any]
    """Its settings."""

    def rows(self) -> dict[str, object]:
        """The card in short, for a table."""
        return {**self.counts, **{f"dropped: {reason}": count for reason, count in self._reasons().items()}}

    def content(self) -> dict[str, Any]:
        """The whole card, as JSON values."""
        return {"title": self.title, "counts": self.rows(), "made_with": self._settings()}

    def write(self, folder: Path, name: str = "card") -> None:
        """Write `<name>.json` and `<name>.md` into `folder`."""
        write_json(folder / f"{name}.json", self.content())
        parts = [f"# {self.title}", _markdown(self.rows()), "## Made with", _markdown(self._settings())]
        write_text(folder / f"{name}.md", "\n\n".join(parts) + "\n")

    def _reasons(self) -> dict[str, int]:
        return dict(Counter(record.reason for record in self.dropped).most_common())

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = to_jsonable_python(dict(self.made_with), fallback=str)
        return settings


@dataclass(frozen=True, kw_only=True)
class ColdStartCard(Card):
    """The card of cold-start data. Means are over all trajectories, lengths in tokens."""

    input: Mapping[str, Any]
    trajectories: Mapping[str, int]
    means: Mapping[str, float]

    @classmethod
    def of(
        cls,
        input_file: Path,
        made_with: Mapping[str, Any],
        train: Sequence[ColdStartTrajectory],
        val: Sequence[ColdStartTrajectory],
        dropped: Sequence[Rejected],
    ) -> "ColdStartCard":
        """The card of these trajectories."""
        records = len(train) + len(val) + len(dropped)
        sha256 = hashlib.sha256(input_file.read_bytes()).hexdigest()

        def mean(value: Callable[[ColdStartTrajectory], float]) -> float:
            return round(fmean(map(value, [*train, *val])), 4)

        return cls(
            title="Cold-start data",
            counts={
                "records read": records,
                "trajectories to learn from": len(train),
                "trajectories to validate on": len(val),
            },
            dropped=dropped,
            made_with={**made_with, "input": f"{input_file}, SHA-256 {sha256}"},
            input={"file": str(input_file), "sha256": sha256, "records": records},
            trajectories={"train": len(train), "val": len(val)},
            means={
                "thoughts": mean(lambda each: each.thoughts),
                "thoughts_kept_long": mean(lambda each: len(each.kept)),
                "long_turns": mean(lambda each: sum(turn.role == Role.LONG for turn in each.turns)),
                "chain_tokens": mean(lambda each: each.tokens["chain"]),
                "long_tokens": mean(lambda each: each.tokens["long"]),
                "short_tokens": mean(lambda each: each.tokens["short"]),
            },
        )

    def rows(self) -> dict[str, object]:
        """See `Card`."""
        means = self.means
        chain, long, short = means["chain_tokens"], means["long_tokens"], means["short_tokens"]
        return {
            **super().rows(),
            "thoughts per chain, kept long": f"{means['thoughts']:.2f}, {means['thoughts_kept_long']:.2f}",
            "long turns per trajectory": f"{means['long_turns']:.2f}",
            "tokens: chain": f"{chain:.1f}",
            "tokens: long + short": f"{long:.1f} + {short:.1f}",
            "tokens against the chain": f"{(long + short) / chain - 1:+.1%}",
        }

    def content(self) -> dict[str, Any]:
        """See `Card`."""
        return {
            "input": self.input,
            "made_with": {key: value for key, value in self._settings().items() if key != "input"},
            "trajectories": self.trajectories,
            "dropped": self._reasons(),
            "means": self.means,
        }


def summary_table(title: str, rows: Mapping[str, object]) -> Table:
    """Names and numbers for a terminal."""
    table = Table("", title, box=SIMPLE_HEAD)
    table.columns[1].justify = "right"
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _markdown(rows: Mapping[str, object]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
