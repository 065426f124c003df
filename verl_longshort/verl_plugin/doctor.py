"""`longshort doctor`: what is installed, what is registered with verl, and what a run here would use.

`inspect_process` looks at one process: did verl load the plug-in, and is everything registered that a run needs? It
runs in the driver and, by `python -m verl_longshort.verl_plugin.doctor`, in a Ray worker; verl loads plug-ins in every
process by itself.
"""

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from verl_longshort.engines.registry import ENGINES, PACKAGES
from verl_longshort.verl_plugin.rollout.registry import ROLLOUTS

DISTRIBUTION = "verl-longshort"
NEEDED = ("verl", "torch", "transformers", "ray", "tensordict", "TransferQueue", "hydra-core", "math-verify")
OPTIONAL = (*PACKAGES, "flash-attn")
BUILT_FOR_TORCH = ("torchvision", "torchaudio")
"""Packages whose binaries must match torch's; pip installs their GPU build even next to a CPU torch."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
IMPORT_TIMEOUT_S = 120
WORKER_TIMEOUT_S = 180
RAY_LOGS = "/tmp/ray/session_latest/logs"
PLUGIN_GROUP = "verl.plugins"
PLUGIN_MODULE = "verl_longshort.verl_plugin.plugin"
PLUGIN_TOPIC = "plug-in"
DEVICE_TOPIC = "device"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at. `problem` says what is wrong and what to do, and is empty when nothing is."""

    topic: str
    value: str
    problem: str = ""


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
    command = [sys.executable, "-m", "verl_longshort.verl_plugin.doctor"]
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


def inspect_process() -> list[Finding]:
    """What the plug-in has registered in this process; one finding per topic, fewer when it is not loaded."""
    # verl warns about each training backend that is not installed; none of them is needed here.
    warnings.filterwarnings("ignore", category=UserWarning, module="verl.workers.engine")
    importlib.import_module("verl")
    plugin = sys.modules.get(PLUGIN_MODULE)
    if plugin is None:
        return [Finding(topic=PLUGIN_TOPIC, value="not loaded", problem=_why_not_loaded())]
    if plugin.LOAD_ERROR is not None:
        return [Finding(topic=PLUGIN_TOPIC, value="failed to load", problem=repr(plugin.LOAD_ERROR))]
    loaded = Finding(topic=PLUGIN_TOPIC, value="loaded")
    return [loaded, *(_probe(topic, look) for topic, look in _PROBES.items())]


def _why_not_loaded() -> str:
    if PLUGIN_MODULE not in {point.value for point in entry_points(group=PLUGIN_GROUP)}:
        return f"no entry point of {PLUGIN_GROUP} names {PLUGIN_MODULE}; install verl-longshort again"
    try:
        importlib.import_module(PLUGIN_MODULE).raise_load_error()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "verl was imported before verl-longshort was installed; start Ray and this process again"


def _probe(topic: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(topic=topic, value=look())
    except Exception as error:
        return Finding(topic=topic, value="missing", problem=f"{type(error).__name__}: {error}")


def _device() -> str:
    from verl.plugin.platform import get_platform

    return str(get_platform().device_name)


def _cpu_platform() -> str:
    from verl.plugin.platform.platform_manager import PlatformRegistry

    from verl_longshort.verl_plugin.platform.cpu import PLATFORM_NAME

    platform = PlatformRegistry.get(PLATFORM_NAME)
    if platform is None:
        raise LookupError(f"verl has the platforms {', '.join(PlatformRegistry.registered_names())}")
    return platform.__name__


def _rollout(name: str) -> str:
    if not ENGINES[name].installed:
        # its classes import it
        return f"{ENGINES[name].title} is not installed (optional)"
    from verl.workers.rollout.base import get_rollout_class
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    replica, adapter = RolloutReplicaRegistry.get(name), get_rollout_class(name)
    return f"{replica.__name__}, {adapter.__name__}"


def _engines() -> str:
    from verl.workers.engine import EngineRegistry

    from verl_longshort.verl_plugin.platform.fsdp import LANGUAGE_MODEL, STRATEGY, VALUE_MODEL

    engines = (EngineRegistry.get_engine_cls(kind, STRATEGY) for kind in (LANGUAGE_MODEL, VALUE_MODEL))
    return ", ".join(engine.__name__ for engine in engines)


def _trainer() -> str:
    from verl.trainer.ppo.v1 import get_trainer_cls

    from verl_longshort.verl_plugin.plugin import TRAINER_NAME

    return str(get_trainer_cls(TRAINER_NAME).__name__)


_PROBES: dict[str, Callable[[], str]] = {
    DEVICE_TOPIC: _device,
    "CPU platform": _cpu_platform,
    "training engines": _engines,
    **{f"rollout '{name}'": partial(_rollout, name) for name in ROLLOUTS},
    "trainer 'longshort'": _trainer,
}


def main() -> None:
    """Start or join Ray, inspect a worker, and print the findings as one line of JSON."""
    import ray

    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    findings = ray.get(ray.remote(inspect_process).remote())
    print(json.dumps([asdict(finding) for finding in findings]))


if __name__ == "__main__":
    # The class that a worker unpickles is that of the imported module, not of __main__.
    from verl_longshort.verl_plugin import doctor

    doctor.main()
