"""The file that says whether a stage is running or done, and with which command.

It is written before the stage's process starts and again when it has ended well, each time in one step.
So a launcher that is killed at any moment leaves a stage that is not done.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from verl_longshort.base.files import write_json

RUNNING = "running"
DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Marker:
    """The last attempt at a stage."""

    fingerprint: str
    """Of the command and all that came before it."""
    status: str
    """RUNNING (also when it failed or was killed) or DONE."""
    mark: str
    """What its processes carry in their environment."""
    seconds: float
    """How long the attempt took; 0 while it runs."""


def read_marker(file: Path) -> Marker | None:
    """The marker in `file`, None before the first attempt."""
    try:
        return Marker(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def write_marker(file: Path, marker: Marker) -> None:
    """Replace the marker in `file`."""
    write_json(file, asdict(marker), indent=None)
