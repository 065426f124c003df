"""The card of prepared data: what was read, what was dropped and why, and with which settings."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from verl_longshort.base.rejected import Rejected

_SECRET = "api_key"


@dataclass(frozen=True, kw_only=True)
class Card:
    """Counts of one preparation."""

    title: str
    counts: Mapping[str, int]
    dropped: Sequence[Rejected]
    made_with: Mapping[str, Any]
    """Its settings."""

    def rows(self) -> dict[str, object]:
        """The counts, for a table."""
        reasons = Counter(record.reason for record in self.dropped)
        return {**self.counts, **{f"dropped: {reason}": count for reason, count in reasons.most_common()}}

    def write(self, folder: Path, name: str = "card") -> None:
        """Write `<name>.json` and `<name>.md` into `folder`."""
        settings = {key: _plain(value) for key, value in self.made_with.items()}
        content = {"title": self.title, "counts": self.rows(), "made_with": settings}
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        parts = [f"# {self.title}", _markdown(self.rows()), "## Made with", _markdown(settings)]
        (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {key: _plain(part) for key, part in asdict(value).items() if key != _SECRET}
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return value if isinstance(value, (int, float, str, dict, type(None))) else str(value)


def _markdown(rows: Mapping[str, object]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])
