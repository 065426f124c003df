"""The data card of cold-start data: how they were made, how many there are, and what was dropped and why."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from longshort_reward.protocol import Role

from verl_longshort.base.rejected import Rejected
from verl_longshort.data.records import ColdStartTrajectory
from verl_longshort.data.synthesis_settings import SynthesisSettings


def card_numbers(
    settings: SynthesisSettings,
    train: Sequence[ColdStartTrajectory],
    val: Sequence[ColdStartTrajectory],
    dropped: Sequence[Rejected],
) -> dict[str, Any]:
    """Everything on the card, as JSON values. Means are over all trajectories, lengths in tokens."""
    done = [*train, *val]
    return {
        "input": {
            "file": str(settings.input),
            "sha256": hashlib.sha256(settings.input.read_bytes()).hexdigest(),
            "records": len(done) + len(dropped),
        },
        "made_with": settings.for_card(),
        "trajectories": {"train": len(train), "val": len(val)},
        "dropped": dict(Counter(record.reason for record in dropped).most_common()),
        "means": {
            "thoughts": _mean(done, lambda r: r.thoughts),
            "thoughts_kept_long": _mean(done, lambda r: len(r.kept)),
            "long_turns": _mean(done, lambda r: sum(turn.role == Role.LONG for turn in r.turns)),
            "chain_tokens": _mean(done, lambda r: r.tokens["chain"]),
            "long_tokens": _mean(done, lambda r: r.tokens["long"]),
            "short_tokens": _mean(done, lambda r: r.tokens["short"]),
        },
    }


def card_rows(numbers: Mapping[str, Any]) -> dict[str, object]:
    """The card in short, for a table."""
    means = numbers["means"]
    joint = means["long_tokens"] + means["short_tokens"]
    return {
        "records read": numbers["input"]["records"],
        "trajectories to learn from": numbers["trajectories"]["train"],
        "trajectories to validate on": numbers["trajectories"]["val"],
        **{f"dropped: {reason}": count for reason, count in numbers["dropped"].items()},
        "thoughts per chain, kept long": f"{means['thoughts']:.2f}, {means['thoughts_kept_long']:.2f}",
        "long turns per trajectory": f"{means['long_turns']:.2f}",
        "tokens: chain": f"{means['chain_tokens']:.1f}",
        "tokens: long + short": f"{means['long_tokens']:.1f} + {means['short_tokens']:.1f}",
        "tokens against the chain": f"{joint / means['chain_tokens'] - 1:+.1%}",
    }


def write_card(folder: Path, numbers: Mapping[str, Any]) -> None:
    """Write `card.json` and `card.md` into `folder`."""
    (folder / "card.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    made = {
        **numbers["made_with"],
        "input": f"{numbers['input']['file']}, SHA-256 {numbers['input']['sha256']}",
    }
    parts = ["# Cold-start data", _markdown(card_rows(numbers)), "## Made with", _markdown(made)]
    (folder / "card.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _markdown(rows: Mapping[str, object]) -> str:
    lines = ["| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows.items())])


def _mean(records: Sequence[ColdStartTrajectory], value: Callable[[ColdStartTrajectory], float]) -> float:
    return round(fmean(map(value, records)), 4)
