"""A run that is killed and started again by the same command goes on from its last checkpoint and ends."""

import itertools
from collections import Counter

import pytest
from helpers.pair_checks import goes_on_with_the_same_weights, starts
from helpers.pair_runs import PairRun
from longshort_reward.protocol import ROLES

from verl_longshort.base.checkpoint import CheckpointStore
from verl_longshort.data.training_trajectories import read_steps

pytestmark = pytest.mark.integration


def forked(source: PairRun, step: int, last: int) -> None:
    """Another run begins with a checkpoint of a finished one, which it leaves as it is."""
    before = {path: path.stat().st_mtime_ns for path in sorted(source.checkpoints.rglob("*"))}
    resume = ("trainer.resume_mode=resume_path", f"trainer.resume_from_path={source.checkpoints}/global_step_{step}")
    fork = PairRun(
        folder=source.folder / f"fork-{step}",
        models=source.models,
        overrides=[*source.overrides, *resume, "longshort.keep_checkpoints=1"],
    )
    fork.folder.mkdir()
    fork.to_end().expect_success()
    assert starts(fork) == [step]
    assert [entry["step"] for entry in fork.steps()] == list(range(step + 1, last + 1))
    (begins,) = [entry["weights"] for entry in fork.audit() if "start" in entry]
    # a source that was killed before the step's weights were sent has them where it went on
    served = [entry["weights"] for entry in source.audit() if step in (entry.get("synced"), entry.get("start"))]
    assert begins == served[-1]
    assert before == {path: path.stat().st_mtime_ns for path in sorted(source.checkpoints.rglob("*"))}
    store = CheckpointStore(fork.checkpoints)
    if step == last:
        # nothing is left to train, so there is nothing of its own to keep
        assert store.latest() is None
        return
    best = store.read_best()
    assert store.latest() == last
    assert best is not None
    assert str(fork.checkpoints) in best["models"]["short"]


def whole_and_shared(run: PairRun, steps: list[int]) -> None:
    """The ends of rounds are there and whole; a policy that did not learn has the files of an earlier one."""
    store = CheckpointStore(run.checkpoints)
    assert store.steps() == steps
    assert all(store.defect(step) is None for step in steps)
    learned = {entry["step"]: entry["learners"] for entry in run.steps()}
    for before, step in itertools.pairwise(steps):
        for role in ROLES:
            learns = any(role in learned[one] for one in range(before + 1, step + 1))
            files = [store.policy_folder(role, one) / "actor/model_world_size_1_rank_0.pt" for one in (before, step)]
            assert files[0].samefile(files[1]) != learns, (role, step)


@pytest.mark.slow
def test_sigterm_saves_what_the_last_step_gave(speakers, tmp_path):
    overrides = ["longshort.schedule=[both]", "longshort.steps_per_round=6", "trainer.test_freq=-1"]
    run = PairRun(folder=tmp_path, models=speakers, overrides=overrides)
    ended = run.stopped_at("rollout-3")
    assert ended.status == 143, ended.tail
    assert ended.seconds < 60
    assert "Traceback" not in ended.output
    saved = CheckpointStore(run.checkpoints).latest()
    # the signal came while step 3 generated, or when it had
    assert saved in (2, 3), ended.tail
    assert ended.output.strip().splitlines()[-1].startswith("Error: stopped by SIGTERM: the same command goes on from")
    run.to_end().expect_success()
    assert starts(run) == [0, saved]
    assert [entry["step"] for entry in run.steps()][-1] == 6
    goes_on_with_the_same_weights(run)


def test_killed_on_a_boundary_of_round_and_epoch(speakers, tmp_path):
    # 16 problems, 4 a step: the epoch ends with step 4, as does the first round
    overrides = ["longshort.schedule=[long,short]", "longshort.steps_per_round=4", "trainer.test_freq=-1"]
    run = PairRun(folder=tmp_path, models=speakers, overrides=overrides)
    run.killed_at("synced-4")
    run.to_end().expect_success()
    assert starts(run) == [0, 4]
    assert [entry["step"] for entry in run.steps()] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [entry["learners"] for entry in run.steps()] == [["long"]] * 4 + [["short"]] * 4
    goes_on_with_the_same_weights(run)
    # of every step, the ones before the kill included, each trajectory once
    logged = Counter((one.step, one.group, one.session) for one in read_steps(run.checkpoints))
    assert sorted({step for step, _, _ in logged}) == list(range(1, 9))
    assert set(logged.values()) == {1}
    whole_and_shared(run, [4, 8])
    # each epoch meets every problem once: nothing is repeated and nothing is left out
    for epoch in (run.steps()[:4], run.steps()[4:]):
        assert len({problem for entry in epoch for problem in entry["problems"]}) == 16


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_at_six_moments_then_forked(speakers, tmp_path):
    overrides = ["longshort.schedule=[long,both,short]", "longshort.steps_per_round=2", "trainer.save_freq=1"]
    run = PairRun(folder=tmp_path, models=speakers, overrides=overrides)
    for moment in ("rollout-1", "long-saved-2", "policies-saved-2", "committed-2", "rollout-4", "synced-5"):
        run.killed_at(moment)
    run.to_end().expect_success()
    # killed before anything was saved; between the policies; before the tracker; on a round's boundary;
    # within a round; before the last step
    assert starts(run) == [0, 0, 1, 1, 2, 3, 5]
    assert run.steps()[-1]["step"] == 6
    goes_on_with_the_same_weights(run)
    again = run.to_end().expect_success()
    assert starts(run)[-1] == 6, again.tail
    assert run.steps()[-1]["step"] == 6
    for step in (2, 4, 6):
        forked(run, step, 6)
