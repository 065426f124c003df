"""What one policy for both roles costs beside two: memory of the processes and seconds of a step, in one go on the CPU.

    python benchmarks/tied.py MODEL PROBLEMS.parquet [--steps 4] [key=value ...]

`longshort train` runs with the same model in both roles, every round `both`, once with a policy for each role and once
with `longshort.tied=true`, in turn as often as `--repeats` says. Memory is the largest sum over the run's processes
that was seen, each with its share of the pages that several have (PSS). Seconds are medians over the steps but each
run's first; they are wall clock, so only the ratio says something, and on a busy machine little.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import psutil

from verl_longshort.base.metrics_files import metrics_files

MIB = 1 << 20
POLL_S = 1.0
TIMEOUT_S = 1800
KINDS = {"WorkerDict": "training", "Server": "engines"}
"""Part of a process's name -> what it is; all others count as `rest`."""
PARTS = ("gen", "learn_long", "learn_short", "learn_tied", "update_weights", "step")


def run(model: str, problems: str, *, tied: bool, steps: int, more: list[str]) -> tuple[dict[str, float], dict]:
    """Peak MiB by kind of process, and the seconds of each part of the steps behind the first."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "verl_longshort.cli", "train", "device=cpu"),
            *(f"longshort.policies.{role}.actor_rollout_ref.model.path={model}" for role in ("long", "short")),
            *(f"data.{split}_files={problems}" for split in ("train", "val")),
            *(f"longshort.tied={str(tied).lower()}", "longshort.schedule=[both]", f"longshort.steps_per_round={steps}"),
            *("trainer.test_freq=-1", "trainer.val_before_train=false", "trainer.save_freq=-1"),
            *(f"trainer.default_local_dir={folder}", *more),
        ]
        with (Path(folder) / "out.txt").open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
            peak = watch(process)
        if process.returncode:
            sys.exit((Path(folder) / "out.txt").read_text())
        seconds = defaultdict(list)
        for file in metrics_files(Path(folder)):
            for line in map(json.loads, file.read_text().splitlines()):
                for part in PARTS if line["step"] > 1 else ():
                    if f"timing_s/{part}" in line["data"]:
                        seconds[part].append(line["data"][f"timing_s/{part}"])
        return peak, seconds


def watch(process: "subprocess.Popen[bytes]") -> dict[str, float]:
    """The largest sum of memory while the run goes on, by kind of process."""
    ends, peak = time.monotonic() + TIMEOUT_S, {"all": 0.0}
    while process.poll() is None:
        if time.monotonic() > ends:
            process.terminate()
        now: dict[str, float] = defaultdict(float)
        for one in psutil.Process(process.pid).children(recursive=True):
            try:
                name, size = one.name() + " ".join(one.cmdline()), one.memory_full_info().pss / MIB
            except psutil.Error:
                continue  # it has just ended
            kind = next((kind for part, kind in KINDS.items() if part in name), "rest")
            now[kind] += size
            now["all"] += size
        if now["all"] > peak["all"]:
            peak = dict(now)
        time.sleep(POLL_S)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("problems")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("more", nargs="*", help="further key=value for every run")
    given = parser.parse_intermixed_args()
    peaks: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    seconds: dict[bool, dict[str, list[float]]] = {False: defaultdict(list), True: defaultdict(list)}
    for number in range(given.repeats):
        # the one that begins alternates, in case the machine gets busier
        for tied in (False, True) if number % 2 == 0 else (True, False):
            peak, steps = run(given.model, given.problems, tied=tied, steps=given.steps, more=given.more)
            peaks[tied].append(peak)
            for part, values in steps.items():
                seconds[tied][part] += values
            print(f"{'tied' if tied else 'two '} { ({k: round(v) for k, v in peak.items()}) }", flush=True)
    for kind in ("all", "training", "engines", "rest"):
        two, one = (max(peak.get(kind, 0.0) for peak in peaks[tied]) for tied in (False, True))
        print(f"memory, {kind}: {two:.0f} MiB with two, {one:.0f} tied, {one / two:.2f}x")
    for part in PARTS:
        pair, alone = (median(seconds[tied][part]) if seconds[tied][part] else None for tied in (False, True))
        ratio = "" if pair is None or alone is None else f", {alone / pair:.2f}x"
        print(f"seconds, {part}: {pair} with two, {alone} tied{ratio}")
    two, one = (
        sum(median(v) for k, v in seconds[tied].items() if v and k.startswith("learn")) for tied in (False, True)
    )
    print(f"seconds, learning in all: {two:.2f} with two, {one:.2f} tied, {one / two:.2f}x")


if __name__ == "__main__":
    main()
