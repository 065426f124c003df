"""A cluster of two nodes loses one: the run on it ends and says what died, also when nothing tells it.

The run here is a stand-in without verl, which starts in seconds; `test_two_nodes.py` does it to training.
"""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.harness import Finished, run_command
from helpers.two_nodes import TwoNodes

from verl_longshort.verl_plugin.run import activity
from verl_longshort.verl_plugin.run.watch import NOTICE_S

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

PROGRAM = Path(__file__).parents[1] / "helpers" / "node_death_probe.py"
LIMIT_S = 300
BOUND_S = NOTICE_S + 30


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    nodes = TwoNodes(tmp_path_factory.mktemp("ray"))
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


def start(cluster: TwoNodes, folder: Path, doing: str) -> Finished:
    variables = {**cluster.variables, "RAY_ADDRESS": cluster.address, "LONGSHORT_DOING": f"it {doing}"}
    log = folder.parent / f"log.{time.monotonic_ns()}.txt"
    command = [sys.executable, str(PROGRAM), str(folder), doing]
    return run_command(command, log=log, timeout_s=LIMIT_S, environment=variables)


def dies(cluster: TwoNodes, folder: Path, doing: str) -> Finished:
    """Start, and kill the second node when both ranks are placed."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(start, cluster, folder, doing)
        while activity.read(folder) is None:
            assert not future.done(), future.result().tail
            time.sleep(0.1)
        cluster.kill_second()
        began = time.monotonic()
        finished = future.result()
    print(f"ended {time.monotonic() - began:.0f} s after the node\n{finished.tail}")
    assert time.monotonic() - began < BOUND_S
    return finished


def test_a_lost_node_ends_the_run_with_a_report_and_is_missed_by_the_next(cluster, tmp_path):
    folder = tmp_path / "run"
    finished = dies(cluster, folder, "calls")
    assert finished.status == 1, finished.tail
    noted = activity.read(folder)
    assert noted is not None
    assert len(set(noted.ranks["long"])) == 2
    report = finished.output[finished.output.index("node ") :]
    for words in (
        "of the Ray cluster died in step 3 of 6: it calls",
        "long rank",
        "short rank",
        f"none in {folder}",
        f"RAY_ADDRESS={cluster.address} longshort train",
    ):
        assert words in report

    refused = start(cluster, folder, "calls")
    assert refused.status == 2, refused.tail
    assert "trainer.nnodes x trainer.n_gpus_per_node = 2 x 1" in refused.output.splitlines()[-1]

    cluster.start_second()
    silent = dies(cluster, tmp_path / "again", "sleeps")
    assert silent.status == 1, silent.tail
    assert "died in step 3 of 6: it sleeps" in silent.output
