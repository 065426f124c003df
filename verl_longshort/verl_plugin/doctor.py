"""`longshort doctor`: what is installed, what is registered with verl, and what a run here would use."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from verl_longshort.engines.registry import ENGINES, PACKAGES
from verl_longshort.verl_plugin.inspection import DEVICE_TOPIC, PLUGIN_TOPIC, Finding, inspect_process

DISTRIBUTION = "verl-longshort"
NEEDED = ("verl", "torch", "transformers", "ray", "tensordict", "TransferQueue", "hydra-core", "math-verify")
OPTIONAL = (*PACKAGES, "flash-attn")
BUILT_FOR_TORCH = ("torchvision", "torchaudio")
"""Packages whose binaries must match torch's; pip installs their GPU build even next to a CPU torch."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
IMPORT_TIMEOUT_S = 120
WORKER_TIMEOUT_S = 180
RAY_LOGS = "/tmp/ray/session_latest/logs"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All findings; `worker` is None when no Ray worker was inspected."""

    installed: list[Finding]
    driver: list[Finding]
    worker: list[Finding] | None
    machine: list[Finding]

    @property
    def problems(self) -> list[str]:
        """One line per problem."""
        found = {"": [*self.installed, *self.machine], "driver: ": self.driver, "Ray worker: ": self.worker or []}
        return [f"{place}{one.topic}: {one.problem}" for place in found for one in found[place] if one.problem]


def diagnose(*, use_ray: bool) -> Diagnosis:
    """Check everything; with `use_ray` also in a worker of a local Ray, or of the cluster in RAY_ADDRESS."""
    driver = inspect_process()
    return Diagnosis(
        installed=[*_versions(), *(_build(name) for name in BUILT_FOR_TORCH if importlib.util.find_spec(name))],
        driver=driver,
        worker=inspect_worker() if use_ray else None,
        machine=_machine(driver),
    )


def inspect_worker(timeout_s: float = WORKER_TIMEOUT_S) -> list[Finding]:
    """`inspect_process` in a fresh Ray worker; one finding that says why when there is no worker to ask.

    In a process of its own: Ray tries forever to reach a cluster that RAY_ADDRESS names and that is gone.
    """
    command = [sys.executable, "-m", "verl_longshort.verl_plugin.inspection"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=True)
    except subprocess.TimeoutExpired:
        address = os.environ.get("RAY_ADDRESS")
        cluster = f"the cluster RAY_ADDRESS={address}" if address else "a local Ray"
        problem = f"{cluster} gave no answer within {timeout_s:.0f} s; logs are in {RAY_LOGS}"
    except subprocess.CalledProcessError as error:
        problem = f"{_last_line(error.stderr, error.returncode)}; Ray's logs are in {RAY_LOGS}"
    else:
        return [Finding(**finding) for finding in json.loads(done.stdout.splitlines()[-1])]
    return [Finding(topic=PLUGIN_TOPIC, value="not reached", problem=problem)]


def _last_line(text: str, status: int) -> str:
    return (text.strip().splitlines() or [f"exit status {status}"])[-1]


def render(diagnosis: Diagnosis, console: Console) -> None:
    """Print the tables and, at the end, each problem in a line."""
    console.print(_table("Installed", "package", {"version": diagnosis.installed}))
    sides = {"in this process": diagnosis.driver}
    if diagnosis.worker is not None:
        sides["in a Ray worker"] = diagnosis.worker
    console.print(_table("Registered with verl", "what", sides))
    console.print(_table("A run here", "what", {"value": diagnosis.machine}))
    for problem in diagnosis.problems:
        console.print(f"[bold red]✗[/] {escape(problem)}", highlight=False, soft_wrap=True)
    if not diagnosis.problems:
        console.print("[bold green]✓[/] nothing is off")


def _versions() -> list[Finding]:
    lines = [line for name in (DISTRIBUTION, "verl") if _installed(name) for line in requires(name) or []]
    # including what verl's trainer requires of verl
    required = [r for r in map(Requirement, lines) if r.marker is None or r.marker.evaluate({"extra": "verl-core"})]
    return [_version(name, required) for name in NEEDED] + [
        Finding(topic=name, value=_installed(name) or "not installed (optional)") for name in OPTIONAL
    ]


def _version(name: str, requirements: Iterable[Requirement]) -> Finding:
    found = _installed(name)
    if found is None:
        return Finding(topic=name, value="missing", problem=f"not installed: pip install {name}")
    for required in requirements:
        if required.name.lower() == name.lower() and not required.specifier.contains(found, prereleases=True):
            problem = f"{found} does not fit: pip install '{required.name}{required.specifier}'"
            return Finding(topic=name, value=found, problem=problem)
    return Finding(topic=name, value=found)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _build(name: str) -> Finding:
    """Import it in a process of its own: a build for another torch fails there, sometimes by a crash."""
    command = [sys.executable, "-c", f"import {name}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_TIMEOUT_S, check=False)
    build = _build_label(name)
    if done.returncode == 0:
        return Finding(topic=name, value=build)
    reason = _last_line(done.stderr, done.returncode)
    remedy = f"uninstall it, or pip install {name} --index-url {CPU_INDEX}"
    problem = f"{build} does not load beside torch {version('torch')} ({reason}); {remedy}"
    return Finding(topic=name, value=build, problem=problem)


def _build_label(name: str) -> str:
    """The version with its build, like 0.26.0+cu130, which the metadata of PyPI's wheels leaves out."""
    spec = importlib.util.find_spec(name)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "version.py"
        label = re.search(r"__version__ = ['\"](.+?)['\"]", file.read_text()) if file.exists() else None
        if label:
            return label[1]
    return _installed(name) or "unknown version"


def _machine(driver: Iterable[Finding]) -> list[Finding]:
    import torch

    device = next((finding.value for finding in driver if finding.topic == DEVICE_TOPIC), "unknown")
    unused_gpu = (
        "verl sees an NVIDIA GPU, but the installed torch is a CPU build; install torch for CUDA, or set "
        "VERL_PLATFORM=cpu to leave the GPU alone"
    )
    engine = next(spec for spec in ENGINES.values() if spec.installed and (device == "cuda" or not spec.needs_gpu))
    return [
        Finding(topic="device", value=device, problem="" if device != "cuda" or torch.version.cuda else unused_gpu),
        Finding(topic="config", value=f"device={device}"),
        Finding(topic="rollout engine", value=engine.name),
        Finding(topic="torch built for", value=f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"),
        Finding(topic="threads of torch", value=str(torch.get_num_threads())),
    ]


def _table(title: str, topics: str, columns: Mapping[str, Sequence[Finding]]) -> Table:
    """One row per topic, one column per place that was looked at."""
    table = Table(topics, *columns, title=title, title_justify="left")
    for topic in dict.fromkeys(finding.topic for findings in columns.values() for finding in findings):
        cells = []
        for findings in columns.values():
            found = next((finding for finding in findings if finding.topic == topic), None)
            shown = "—" if found is None else escape(found.value)
            cells.append(f"[red]{shown} ✗[/]" if found and found.problem else shown)
        table.add_row(topic, *cells)
    return table
