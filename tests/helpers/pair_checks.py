"""What must hold of every run of a pair, read in its audit and metrics."""

from typing import Any

from longshort_reward.protocol import ROLES

from helpers.harness import read_metrics
from helpers.pair_runs import PairRun
from verl_longshort.base.metrics_files import metrics_files


def learned_as_scheduled(run: PairRun, schedule: list[str]) -> None:
    """Exactly the learner's weights changed in every step, in its engine; the other's stayed bit-identical."""
    weights = [entry["weights"] for entry in run.audit() if entry.get("start") == 0 or "synced" in entry]
    assert len(weights) == len(schedule) + 1
    for learner, before, after in zip(schedule, weights, weights[1:], strict=False):
        for role in ROLES:
            learns = learner in (role, "both")
            assert (before[role] != after[role]) == learns, (learner, role)


def rows_are_sound(run: PairRun, per_step: int, *, bound: float = 1e-4) -> None:
    """Rollout and training see the same tokens; engine and actor agree on their probabilities."""
    metrics = metrics_of(run)
    for entry in run.steps():
        for role in ROLES:
            seen = entry["rows"][role]
            assert seen["rows"] == per_step - metrics[entry["step"]]["pair/failed/engine"]
            assert not any(seen["broken"].values()), seen
            if role in entry["learners"]:
                assert seen["own_tokens"] > 0
                assert seen["logprob_difference"] <= bound


def metrics_of(run: PairRun) -> dict[int, dict[str, Any]]:
    """Step -> metrics, of all starts."""
    return {s: m for file in metrics_files(run.checkpoints) for s, m in read_metrics(file).items()}


def starts(run: PairRun) -> list[int]:
    """The step from which each start went on."""
    return [entry["start"] for entry in run.audit() if "start" in entry]


def goes_on_with_the_same_weights(run: PairRun) -> None:
    """Each start serves the very weights that the step it goes on from had given to the engines."""
    first = next(e["weights"] for e in run.audit() if e.get("start") == 0)
    known = {0: first}
    for entry in run.audit():
        if "synced" in entry:
            known[entry["synced"]] = entry["weights"]
        if "start" in entry and entry["start"] in known:
            assert entry["weights"] == known[entry["start"]]
