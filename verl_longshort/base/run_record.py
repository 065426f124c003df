"""What a recipe's launcher writes down in its output folder, for itself and for readers such as `longshort report`.

`run.json` says what was run, with which settings and versions, and since when; the launcher itself never reads it. A
stage's marker says whether it is running or done, and with which command. It is written before the stage's process
starts and again when it has ended well, each time in one step, so a launcher that is killed at any moment leaves a
stage that is not done.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from verl_longshort.base.files import write_json

FILE = "run.json"
PACKAGES = ("verl-longshort", "verl", "torch", "transformers", "vllm", "ray")
RUNNING = "running"
DONE = "done"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The facts of a run."""

    recipe: str
    """Path of the recipe's YAML."""
    overrides: Sequence[str]
    """The `key=value`s of the last start."""
    settings: Mapping[str, Any]
    """The recipe's other keys with the overrides applied, such as `seed`."""
    stages: Mapping[str, str]
    """Command of each stage, in order."""
    versions: Mapping[str, str]
    """Of Python and of the packages that matter."""
    machine: str
    started: str
    """First start of a launcher in this folder, ISO 8601 in UTC."""
    last_started: str


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


def write_record(
    output: Path, *, recipe: Path, overrides: Sequence[str], settings: Mapping[str, Any], stages: Mapping[str, str]
) -> None:
    """Write the record into a recipe's output folder; the time of the first start stays."""
    before = read_record(output)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record = RunRecord(
        recipe=str(recipe),
        overrides=list(overrides),
        settings=settings,
        stages=stages,
        versions=installed_versions(),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        started=before.started if before else now,
        last_started=now,
    )
    write_json(output / FILE, asdict(record), indent=1)


def installed_versions() -> dict[str, str]:
    """Of Python and of the packages that matter, those that are installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def read_record(output: Path) -> RunRecord | None:
    """The record in a recipe's output folder, None when there is none."""
    try:
        return RunRecord(**json.loads((output / FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def read_marker(file: Path) -> Marker | None:
    """The marker in `file`, None before the first attempt."""
    try:
        return Marker(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def write_marker(file: Path, marker: Marker) -> None:
    """Replace the marker in `file`."""
    write_json(file, asdict(marker), indent=None)
