"""A run that loses a process says so within a minute, leaves nothing behind, and goes on when it is started again.

Each chain is one run: the start that goes on after one loss is the one that has the next.
"""

import signal
from pathlib import Path

import pytest
from helpers.pair_runs import PairRun
from longshort_reward.protocol import Role

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

GENERATING, LEARNING, SENDING, SAVING = "rollout", "learning", "syncing", "long-saved"
DOING = {
    GENERATING: "generating trajectories",
    LEARNING: " learns",
    SENDING: "giving the engines their weights",
    SAVING: "saving a checkpoint",
}
LOOP, STORAGE, CONTROLLER = "agent-loop worker", "storage unit of TransferQueue", "controller of TransferQueue"
LONG_SERVER, SHORT_SERVER = "transformers_long_server", "transformers_short_server"
LONG_WORKER, SHORT_WORKER = "worker rank 0 of the long policy", "worker rank 0 of the short policy"
RUNNER, GCS, RAYLET = "the task runner", "gcs_server", "raylet"
EVERY = (LOOP, STORAGE, CONTROLLER, LONG_SERVER, SHORT_SERVER, LONG_WORKER, SHORT_WORKER, RUNNER, GCS, RAYLET)
CHAINS = {
    "first": [(LOOP, GENERATING), (STORAGE, GENERATING), (GCS, GENERATING), (LONG_WORKER, LEARNING)],
    "second": [
        (LONG_SERVER, GENERATING),
        (SHORT_SERVER, GENERATING),
        (RUNNER, LEARNING),
        (SHORT_WORKER, SAVING),
        (RAYLET, GENERATING),
    ],
    **{f"every {moment}": [(process, moment) for process in EVERY] for moment in DOING},
}
REPORT_S = 60


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_lost_process(
    speakers: dict[Role, Path], tmp_path: Path, chain: str, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = len(CHAINS[chain]) + 1
    overrides = ["longshort.schedule=[both]", f"longshort.steps_per_round={steps}", "trainer.test_freq=-1"]
    run = PairRun(folder=tmp_path, models=speakers, overrides=[*overrides, "trainer.save_freq=1"])
    for step, (process, moment) in enumerate(CHAINS[chain], start=1):
        lost = run.lose(process, f"{moment}-{step}", number)
        with capsys.disabled():
            print(f"\n{number.name} {process}, {DOING[moment].strip()}: {lost.seconds:.0f} s")
        assert lost.status == 1, lost.tail
        assert lost.seconds <= REPORT_S
        assert "Traceback" not in lost.output
        (report,) = [line for line in lost.output.splitlines() if f"in step {step} of {steps}" in line]
        assert process in report
        assert DOING[moment] in report
        assert ("stands still" if number is signal.SIGSTOP else "died") in report
        # engines get their weights when the step is saved
        last = step if moment == SENDING else step - 1
        assert (f"step {last} in {run.checkpoints}" if last else "the run begins anew") in lost.output
        assert "longshort train" in lost.output
    run.to_end().expect_success()
    same_weights(run)


def same_weights(run: PairRun) -> None:
    """Every start begins with the weights of the step it goes on from, and a step done again gives the same."""
    known = {0: next(entry["weights"] for entry in run.audit() if entry.get("start") == 0)}
    for entry in run.audit():
        if "synced" in entry:
            assert known.setdefault(entry["synced"], entry["weights"]) == entry["weights"]
        if "start" in entry and entry["start"] in known:
            assert entry["weights"] == known[entry["start"]]
