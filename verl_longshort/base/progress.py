"""How far a stage is, told through a small file.

A stage calls `report`; the recipe launcher sets `LONGSHORT_PROGRESS` to a file of the stage and polls it with
`read`. Without the variable `report` does nothing, so a stage can be run alone.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "LONGSHORT_PROGRESS"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`done` of `total` units of work (steps, records ...) and a short message."""

    done: float
    total: float
    message: str = ""


def report(done: float, total: float, message: str = "") -> None:
    """Tell how far this stage is. Written to a new file and renamed, so a reader never sees half of it."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    temporary = f"{path}.{os.getpid()}.tmp"
    text = json.dumps(asdict(Progress(done=done, total=total, message=message)))
    Path(temporary).write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def read(path: Path) -> Progress | None:
    """The last report in `path`, or None when nothing has been reported yet."""
    try:
        return Progress(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
