"""Where a run's metrics are: one file per start of the run, so that a resumed run erases nothing. No verl."""

import os
from pathlib import Path


def metrics_files(folder: Path) -> list[Path]:
    """The files in which verl's file logger wrote a run's metrics, one per start of the run, oldest first."""
    return sorted(folder.glob("metrics.*.jsonl"), key=lambda path: int(path.name.split(".")[1]))


def number_metrics_file(folder: Path) -> None:
    """Make `folder` and let verl's file logger, which truncates its file, write the next one there."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(metrics_files(folder))
    os.environ.setdefault("VERL_FILE_LOGGER_PATH", str(folder / f"metrics.{number}.jsonl"))
