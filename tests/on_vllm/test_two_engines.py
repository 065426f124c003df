"""The real trainer with both policies on vLLM's build for CPUs: who learns, and whether the engines know of it."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from helpers.pair_checks import goes_on_with_the_same_weights, learned_as_scheduled, rows_are_sound, starts
from helpers.pair_runs import PairRun
from longshort_reward.protocol import ANSWER_CLOSE, RETHINK, THINK_CLOSE, Role

from verl_longshort.base.checkpoint import CheckpointStore
from verl_longshort.data.training_trajectories import read_steps

# a run takes four minutes where two cores are busy
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

BOUND = 2e-5
"""Of |engine - actor| of a log-prob: ten times the largest that was seen (docs/measurements/engines.md)."""
CLOSING = {"long": (THINK_CLOSE,), "short": (ANSWER_CLOSE, RETHINK)}


def on_vllm(folder: Path, models: Mapping[Role, Path], *overrides: str) -> PairRun:
    """Nothing but the rollout's name says that it is vLLM; its first step takes long on a busy machine."""
    given = ["actor_rollout_ref.rollout.name=vllm", "longshort.rollout_timeout_s=300", *overrides]
    return PairRun(folder=folder, models=models, overrides=given)


def vllm_served_both(run: PairRun) -> None:
    names = [name for entry in run.audit() if "processes" in entry for name in entry["processes"]]
    for role in Role:
        assert any(f"vllm_{role}_server_0_0" in name for name in names), names


def turns_end_with_their_tags(run: PairRun) -> None:
    """A stop string ends a turn right behind it; other turns are faults or used their tokens up."""
    turns = [turn for one in read_steps(run.checkpoints) for turn in one.turns]
    whole = [turn for turn in turns if turn.fault is None]
    assert len(whole) > len(turns) / 2
    for turn in whole:
        assert turn.text.endswith(CLOSING[turn.role]), turn
        assert sum(turn.text.count(tag) for tag in CLOSING[turn.role]) == 1


def test_a_mixed_schedule_that_was_killed_in_shared_pools(speakers: dict[Role, Path], tmp_path: Path) -> None:
    schedule = ["long", "short", "both"]
    run = on_vllm(tmp_path, speakers, f"longshort.schedule=[{','.join(schedule)}]", "trainer.test_freq=-1")
    run.killed_at("rollout-3")
    run.to_end().expect_success()
    vllm_served_both(run)
    assert starts(run) == [0, 2]
    assert [entry["learners"] for entry in run.steps()] == [["long"], ["short"], ["long", "short"]]
    learned_as_scheduled(run, schedule)
    goes_on_with_the_same_weights(run)
    rows_are_sound(run, per_step=16, bound=BOUND)
    turns_end_with_their_tags(run)
    assert CheckpointStore(run.checkpoints).latest() == 3


def test_pools_of_their_own(speakers: dict[Role, Path], tmp_path: Path) -> None:
    run = on_vllm(tmp_path, speakers, "longshort.schedule=[short,both]", "longshort.pools=separate")
    run.to_end().expect_success()
    vllm_served_both(run)
    learned_as_scheduled(run, ["short", "both"])
    rows_are_sound(run, per_step=16, bound=BOUND)


@pytest.mark.parametrize("merged", [True, False], ids=["merged", "as they are"])
def test_adapters_beside_a_policy_that_never_learns(speakers: dict[Role, Path], tmp_path: Path, merged: bool) -> None:
    actor = "longshort.policies.long.actor_rollout_ref"
    adapters = [f"{actor}.model.lora_rank=8", f"{actor}.model.lora.merge={str(merged).lower()}"]
    learns = [*adapters, f"{actor}.actor.optim.lr=1e-2", "trainer.test_freq=-1"]
    run = on_vllm(tmp_path, speakers, "longshort.schedule=[long]", "longshort.steps_per_round=2", *learns)
    run.to_end().expect_success()
    vllm_served_both(run)
    learned_as_scheduled(run, ["long", "long"])
    rows_are_sound(run, per_step=16, bound=BOUND)
    turns_end_with_their_tags(run)
