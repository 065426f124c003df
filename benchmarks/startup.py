"""What the processes of a start import, and for how long.

Of each kind of process, the imports alone, in a fresh interpreter: seconds of processor time and of the clock, how many
modules, which packages take longest (their own modules, without what those import in turn), and which of our own
modules are dearest with all that only they bring in. Where verl starts the process, the same with the plug-in off tells
what the plug-in adds. Best of the rounds.

    python benchmarks/startup.py --out startup.json
    python benchmarks/startup.py --rounds 1 --only command    # smoke
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import machine
from rich.console import Console
from rich.table import Table

PROCESSES: dict[str, tuple[str, ...]] = {
    "command": ("verl_longshort.cli",),
    "recipe": ("verl_longshort.cli", "verl_longshort.planner.plan_recipe", "verl_longshort.recipe.launcher"),
    "grader": ("longshort_reward.grader_process",),
    "eval, weigh": ("verl_longshort.cli", "verl_longshort.engines.transformers"),
    "engine": ("verl_longshort.engines.loading", "verl_longshort.engines.transformers_engine"),
    "sft": ("verl_longshort.verl_plugin.sft.trainer",),
    "verl": ("verl",),
    "task runner": ("verl.trainer.main_ppo", "verl.trainer.ppo.v1"),
    "agent-loop worker": ("verl.trainer.ppo.v1.agent_loop_tq",),
    "training worker": ("verl.workers.engine_workers",),
    "rollout server": ("verl_longshort.verl_plugin.rollout.server", "verl_longshort.engines.transformers_engine"),
}
"""Kind of process -> what it imports, in order, before it does anything."""
STARTED_BY_VERL = ("verl", "task runner", "agent-loop worker", "training worker")
OFF = {"VERL_USE_EXTERNAL_PLUGINS": "none"}
OURS = ("verl_longshort", "longshort_reward")
SHOWN = 4
TIMEOUT_S = 1200
PROGRAM = """
import sys, time
begun, used = time.monotonic(), time.process_time()
for name in sys.argv[1:]:
    __import__(name)
print(time.process_time() - used, time.monotonic() - begun, len(sys.modules))
"""


@dataclass(frozen=True)
class Imported:
    """A line of `-X importtime`, in seconds of the clock."""

    name: str
    own: float
    whole: float
    depth: int


def imports(names: tuple[str, ...], *, plugin: bool) -> dict[str, Any]:
    """One fresh process."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", PROGRAM, *names],
        env={**os.environ, **({} if plugin else OFF)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    cpu, seconds, modules = done.stdout.splitlines()[-1].split()
    lines = [line for line in map(_line, done.stderr.splitlines()) if line]
    own: dict[str, float] = defaultdict(float)
    for one in lines:
        own[one.name.partition(".")[0]] += one.own
    ours = {one.name: one.whole for one in lines if one.name.startswith(OURS)}
    return {
        **{"cpu_s": float(cpu), "seconds": float(seconds), "modules": int(modules)},
        "packages": dict(sorted(own.items(), key=lambda item: -item[1])[:12]),
        "ours": dict(sorted(ours.items(), key=lambda item: -item[1])[:12]),
    }


def _line(text: str) -> Imported | None:
    if not text.startswith("import time:") or "imported package" in text:
        return None
    own, whole, name = text.removeprefix("import time:").split("|")
    depth = (len(name) - len(name.lstrip())) // 2
    return Imported(name.strip(), int(own) / 1e6, int(whole) / 1e6, depth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=PROCESSES, help="kinds of processes; all")
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    options = parser.parse_args()
    chosen = {kind: names for kind, names in PROCESSES.items() if not options.only or kind in options.only}
    runs = [(kind, plugin) for kind in chosen for plugin in (True, False) if plugin or kind in STARTED_BY_VERL]
    best: dict[tuple[str, bool], dict[str, Any]] = {}
    for kind, plugin in runs * options.rounds:
        seen = imports(chosen[kind], plugin=plugin)
        if (kind, plugin) not in best or seen["cpu_s"] < best[kind, plugin]["cpu_s"]:
            best[kind, plugin] = seen
    result = {
        "machine": machine(),
        "processes": {kind: {"with": best[kind, True], "plugin_off": best.get((kind, False))} for kind in chosen},
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    table = Table("process", "cpu s", "plug-in off", "seconds", "modules", "packages, seconds", title="imports")
    for kind in chosen:
        seen, off = best[kind, True], best.get((kind, False))
        packages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in list(seen["packages"].items())[:SHOWN])
        without = "" if off is None else f"{off['cpu_s']:.2f}"
        table.add_row(
            *(kind, f"{seen['cpu_s']:.2f}", without, f"{seen['seconds']:.2f}", str(seen["modules"]), packages)
        )
    Console().print(table)


if __name__ == "__main__":
    main()
