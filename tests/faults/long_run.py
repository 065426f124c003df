"""A long run of a nano pair in which 2 % of the trajectories are made to fail: it must end, with the failures counted.

    python tests/faults/long_run.py /tmp/long_run --steps 2000

Starts `longshort train` on two tiny models, then prints what failed and how long a step took. Started again, it goes on
from the last checkpoint. Exit status 1 when the run did not end, or did not count what failed.
"""

import sys
import time
from collections import Counter
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import failing
from helpers.harness import read_metrics, run_command
from helpers.pair_runs import PairRun
from helpers.speakers import write_speakers
from longshort_reward.protocol import ROLES

from verl_longshort.base.metrics_files import metrics_files

PER_MILLE = 20
TRAJECTORIES = 16


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--steps", default=2000, show_default=True)
@click.option("--hours", default=6.0, show_default=True, help="Time limit.")
def main(folder: Path, steps: int, hours: float) -> None:
    """Run it in FOLDER."""
    models = {role: folder / "models" / role for role in ROLES}
    if not all(path.exists() for path in models.values()):
        folder.mkdir(parents=True, exist_ok=True)
        write_speakers(folder / "models")
    overrides = [
        "longshort.schedule=[long,short]",
        f"longshort.steps_per_round={steps // 2}",
        # so few trajectories a step that 5 % are passed by chance
        "longshort.max_failed_share=0.1",
        "longshort.log_groups=0",
        "actor_rollout_ref.actor.optim.lr=1e-5",
        f"trainer.save_freq={max(1, steps // 10)}",
        f"trainer.test_freq={max(1, steps // 10)}",
    ]
    run = PairRun(folder=folder, models=models, overrides=overrides, variables={failing.VARIABLE: str(PER_MILLE)})
    log = folder / f"log.{time.monotonic_ns()}.txt"
    done = run_command(run.command(), log=log, timeout_s=3600 * hours, environment=run.environment())
    print(f"exit status {done.status} after {done.seconds:.0f} s")
    files = metrics_files(run.checkpoints)
    metrics = {step: data for file in files for step, data in read_metrics(file).items() if "pair/accuracy" in data}
    failed: Counter[str] = Counter()
    for data in metrics.values():
        failed.update({name: int(data[name]) for name in data if "/failed" in name})
    seconds = sorted(data["timing_s/step"] for data in metrics.values())
    print(f"{len(metrics)} steps of {steps}; a step takes {seconds[len(seconds) // 2]:.2f} s (median)")
    print({name: count for name, count in sorted(failed.items()) if count})
    share = failed["pair/failed/engine"] / (TRAJECTORIES * len(metrics))
    print(f"{share:.2%} of the trajectories failed; {PER_MILLE / 10:g} % were made to")
    if done.status != 0 or sorted(metrics) != list(range(1, steps + 1)) or not 0 < share < 0.04:
        print(done.tail)
        sys.exit(1)


if __name__ == "__main__":
    main()
