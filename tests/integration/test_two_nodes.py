"""The same command on a Ray cluster of two nodes: it trains, it loses a node, it is started again."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.pair_runs import PairRun
from helpers.two_nodes import ClusterRun, TwoNodes
from longshort_reward.protocol import ROLES
from test_pair import rows_are_sound
from test_resume import goes_on_with_the_same_weights, starts
from transformers import AutoModelForCausalLM

from verl_longshort.verl_plugin.run import activity
from verl_longshort.verl_plugin.run.watch import GRACE_S, NOTICE_S

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

SCHEDULE = ["long", "both", "short"]
STEPS = 6


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    nodes = TwoNodes(tmp_path_factory.mktemp("ray"))
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


def one_rank_per_node(run: ClusterRun) -> None:
    """Each policy has a rank on each node: by Ray's word, and by what died with the second one."""
    noted = activity.read(run.checkpoints)
    assert noted is not None
    nodes = [list(noted.ranks[role]) for role in ROLES]
    assert nodes[0] == nodes[1]
    assert len(set(nodes[0])) == 2
    assert sum("WorkerDict" in title for title in run.killed) == 2, run.killed
    assert sum("TransformersServer" in title for title in run.killed) == 2, run.killed


def says_how_to_go_on(output: str, step: int, run: ClusterRun) -> None:
    """The last lines: which node, doing what, the last checkpoint, the command."""
    report = output[output.rindex("Error: node ") :]
    assert "of the Ray cluster died in step" in report
    assert "long rank" in report
    assert "short rank" in report
    assert f"step {step} in {run.checkpoints}" in report
    assert f"RAY_ADDRESS={run.cluster.address} longshort train " in report
    assert "trainer.nnodes=2" in report


def weights_follow_the_schedule(run: PairRun) -> None:
    """In every step exactly the learners' weights changed, on both nodes alike."""
    known = {e.get("synced", e.get("start")): e["weights"] for e in run.audit() if "weights" in e}
    assert sorted(known) == list(range(STEPS + 1))
    for step in range(1, STEPS + 1):
        learner = SCHEDULE[(step - 1) // 2]
        for role in ROLES:
            assert len(known[step][role]) == 2
            assert len(set(known[step][role])) == 1
            assert (known[step][role] != known[step - 1][role]) == (learner in (role, "both")), (step, role)


def checkpoint_is_whole(checkpoints: Path, step: int) -> None:
    """A file of each rank and one model for all, per policy; the tracker names it."""
    assert (checkpoints / "latest_checkpointed_iteration.txt").read_text() == str(step)
    assert json.loads((checkpoints / f"global_step_{step}" / "pair.json").read_text())["step"] == step
    for role in ROLES:
        folder = checkpoints / role / f"global_step_{step}" / "actor"
        for part in ("model", "optim", "extra_state"):
            names = sorted(path.name for path in folder.glob(f"{part}_world_size_*"))
            assert names == [f"{part}_world_size_2_rank_{rank}.pt" for rank in (0, 1)]
        AutoModelForCausalLM.from_pretrained(folder / "huggingface")


def test_two_nodes_train_lose_one_and_go_on(speakers, tmp_path, cluster):
    schedule = f"longshort.schedule=[{','.join(SCHEDULE)}]"
    overrides = [schedule, "longshort.steps_per_round=2", "trainer.test_freq=-1"]
    run = ClusterRun(folder=tmp_path, models=speakers, overrides=overrides, cluster=cluster)

    ended, seconds = run.loses_second_node(at="synced-3", halted=False)
    print(f"ended {seconds:.0f} s after the node\n{ended.tail}")
    assert ended.status == 1, ended.tail
    assert seconds < NOTICE_S + GRACE_S
    one_rank_per_node(run)
    says_how_to_go_on(ended.output, 2, run)
    checkpoint_is_whole(run.checkpoints, 2)

    refused = run.to_end()
    print(refused.tail)
    assert refused.status == 2
    assert "trainer.nnodes x trainer.n_gpus_per_node = 2 x 1" in refused.output.splitlines()[-1]

    cluster.start_second()
    ended, seconds = run.loses_second_node(at="rollout-5", halted=True)
    print(f"ended {seconds:.0f} s after the node, standing still\n{ended.tail}")
    assert ended.status == 1, ended.tail
    assert seconds < NOTICE_S + GRACE_S
    says_how_to_go_on(ended.output, 4, run)

    cluster.start_second()
    run.to_end().expect_success()
    assert starts(run) == [0, 2, 4]
    assert run.steps()[-1]["step"] == STEPS
    goes_on_with_the_same_weights(run)
    weights_follow_the_schedule(run)
    rows_are_sound(run, per_step=16)
    checkpoint_is_whole(run.checkpoints, STEPS)
