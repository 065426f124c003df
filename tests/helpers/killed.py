"""Runs a recipe, kills it at moments drawn from a seed, starts it again each time, and compares it with another run.

`run_to_end` and `run_killed` run it, `differences` compares their folders: the same files with the same content where a
pattern of `SAME` fits, as many lines in each record file, and no stage that was done started again.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from verl_longshort.base.run_record import DONE, read_marker

MARK = "LONGSHORT_KILLED_RECIPE"
LAUNCHER, ONE, ALL = "the launcher", "one process", "all processes"
KINDS = (LAUNCHER, ONE, ALL)
SAME = ("**/*.safetensors", "**/*.parquet", "table.txt", "table.md")
"""Files that hold no times: weights, problems, and the tables of the shipped recipes."""
LINES = ("**/*.jsonl",)
NOT_LINES = "metrics."
"""A trainer begins such a file at each start; where they overlap, the last start counts."""
ATTEMPT = "=== "


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One disturbance."""

    after_s: float
    """Since the start before it."""
    kind: str
    running: tuple[str, ...]
    """The stages that were running."""
    done: Mapping[str, int]
    """The stages that were done, with how often each had been started."""


def run_to_end(recipe: Path, output: Path, overrides: Sequence[str], *, timeout_s: float) -> float:
    """Run the recipe until it ends well; returns the seconds. Raises AssertionError otherwise."""
    begin = time.monotonic()
    process, mark = started(recipe, output, overrides)
    try:
        status: int | None = process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        kill(processes_of(mark))
    assert status == 0, f"exit status {status}: {log_of(output).read_text(encoding='utf-8')[-2000:]}"
    return time.monotonic() - begin


def run_killed(
    recipe: Path,
    output: Path,
    overrides: Sequence[str],
    *,
    gaps: Sequence[float],
    draw: random.Random,
    timeout_s: float,
) -> list[Kill]:
    """Run the recipe, kill it `gaps[i]` seconds after start i, and let the last start end; returns what was killed.

    Fewer kills than gaps when the recipe ended before one.
    """
    kills: list[Kill] = []
    for gap in gaps:
        process, mark = started(recipe, output, overrides)
        try:
            process.wait(timeout=gap)
        except subprocess.TimeoutExpired:
            kind = draw.choice(KINDS)
            killed = Kill(after_s=gap, kind=kind, running=running_stages(output), done=done_stages(output))
            kill(_chosen(kind, process, mark, draw))
            kills.append(killed)
            if kind == ONE:
                # the launcher ends the stage that lost a process, or goes on without that process
                _wait_or_kill(process, mark)
            continue
        kill(processes_of(mark))
        # a recipe that was done runs again in no time; one that failed is started again, too
        if process.returncode == 0:
            break
    run_to_end(recipe, output, overrides, timeout_s=timeout_s)
    return kills


def _chosen(kind: str, process: "subprocess.Popen[bytes]", mark: str, draw: random.Random) -> list[psutil.Process]:
    if kind == LAUNCHER:
        return [psutil.Process(process.pid)]
    every = sorted(processes_of(mark), key=lambda each: each.pid)
    others = [each for each in every if each.pid != process.pid]
    return [draw.choice(others or every)] if kind == ONE else every


def _wait_or_kill(process: "subprocess.Popen[bytes]", mark: str, grace_s: float = 90.0) -> None:
    try:
        process.wait(timeout=grace_s)
    except subprocess.TimeoutExpired:
        kill(processes_of(mark))
        process.wait()


def started(recipe: Path, output: Path, overrides: Sequence[str]) -> tuple["subprocess.Popen[bytes]", str]:
    """A launcher of the recipe, and the mark that all its processes carry."""
    mark = uuid.uuid4().hex
    log_of(output).parent.mkdir(parents=True, exist_ok=True)
    with log_of(output).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "verl_longshort.recipe.launcher", str(recipe), f"output={output}", *overrides],
            env={**os.environ, MARK: mark},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return process, mark


def log_of(output: Path) -> Path:
    """What the launchers of a folder say; beside it, since a kill must not leave a file more in it."""
    return output.parent / f"{output.name}.log"


def processes_of(mark: str) -> list[psutil.Process]:
    """The running processes that carry the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL to all of them, at once."""
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)


def attempts(output: Path) -> dict[str, int]:
    """How often each stage was started."""
    logs = sorted((output / "logs").glob("*.log"))
    return {
        log.stem: sum(line.startswith(ATTEMPT) for line in log.read_text(errors="replace").splitlines()) for log in logs
    }


def done_stages(output: Path) -> dict[str, int]:
    """The stages whose marker says done, with how often each was started."""
    counts = attempts(output)
    markers = {file.stem: read_marker(file) for file in sorted((output / "stages").glob("*.json"))}
    return {name: counts.get(name, 0) for name, marker in markers.items() if marker and marker.status == DONE}


def running_stages(output: Path) -> tuple[str, ...]:
    """The stages whose marker says running."""
    markers = {file.stem: read_marker(file) for file in sorted((output / "stages").glob("*.json"))}
    return tuple(name for name, marker in markers.items() if marker and marker.status != DONE)


def differences(undisturbed: Path, killed: Path, kills: Sequence[Kill], same: Sequence[str] = SAME) -> list[str]:
    """What differs between the folders, a line each."""
    lines = list(_different_files(undisturbed, killed, same))
    counts = [{file: _lines(folder / file) for file in _record_files(folder)} for folder in (undisturbed, killed)]
    for file in sorted({*counts[0], *counts[1]}):
        one, other = (count.get(file) for count in counts)
        if one != other:
            lines.append(f"{file}: {one} lines undisturbed, {other} killed")
    now = attempts(killed)
    again = {name for each in kills for name, count in each.done.items() if now.get(name, 0) > count}
    lines += [f"stage {name} was done and was started again" for name in sorted(again)]
    if sorted(attempts(undisturbed)) != sorted(now):
        lines.append(f"stages: {sorted(attempts(undisturbed))} undisturbed, {sorted(now)} killed")
    return lines


def _different_files(undisturbed: Path, killed: Path, same: Sequence[str]) -> Iterator[str]:
    one, other = (
        {str(file.relative_to(folder)) for pattern in same for file in folder.glob(pattern) if file.is_file()}
        for folder in (undisturbed, killed)
    )
    if not one:
        yield f"nothing in {undisturbed} fits {', '.join(same)}: there is nothing to compare"
    for file in sorted(one | other):
        if file not in one or file not in other:
            yield f"{file}: only in {'killed' if file in other else 'undisturbed'}"
        elif _digest(undisturbed / file) != _digest(killed / file):
            yield f"{file}: another content"


def _record_files(folder: Path) -> list[str]:
    files = (file for pattern in LINES for file in folder.glob(pattern) if not file.name.startswith(NOT_LINES))
    return sorted(str(file.relative_to(folder)) for file in files)


def _lines(file: Path) -> int:
    return len(file.read_bytes().splitlines())


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def gaps_of(seconds: float, kills: int, draw: random.Random) -> list[float]:
    """Gaps between moments that are spread at random over a run of so many seconds."""
    moments = sorted(draw.uniform(0, seconds) for _ in range(kills))
    return [after - before for before, after in zip([0.0, *moments], moments, strict=False)]
