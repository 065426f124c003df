"""A Ray cluster of two nodes on this machine, one of which can be killed, and runs of the pair on it.

Each node is a raylet of its own with its own workers, one logical device and a small object store; what is
between them is the network of this machine.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from helpers.harness import QUIET, Finished, marked, run_command
from helpers.pair_runs import PairRun

NODE_MARK = "TWO_NODES_TEST"
STORE_BYTES = 200_000_000
START_S = 240
FATE_S = 420


class TwoNodes:
    """`first` is the head; `second` can be killed and started again. The second shares nothing but disk."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._folder = folder
        # a cluster of the test's own, also where other clusters of this user ask for a token
        self.variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
        self._marks = {name: f"{name}-{uuid.uuid4().hex}" for name in ("first", "second")}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Both nodes."""
        head = ["--head", f"--port={self._port}", f"--temp-dir={self._folder}", "--include-dashboard=false"]
        self._ray_start("first", head)
        self.start_second()

    def start_second(self) -> None:
        """The second node, for the first time or again."""
        self._ray_start("second", [f"--address={self.address}"])

    def kill_second(self) -> list[str]:
        """`kill -9` every process of the second node; returns their titles."""
        processes = marked(NODE_MARK, self._marks["second"])
        titles = [" ".join(process.cmdline()) for process in processes]
        self._end(processes, signal.SIGKILL)
        return titles

    def stop(self) -> None:
        """End both nodes and everything on them."""
        for mark in self._marks.values():
            self._end(marked(NODE_MARK, mark), signal.SIGKILL)

    def _ray_start(self, name: str, place: list[str]) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        size = ["--num-cpus=16", "--num-gpus=1", f"--object-store-memory={STORE_BYTES}"]
        variables = {**os.environ, **QUIET, **self.variables, NODE_MARK: self._marks[name]}
        variables.pop("RAY_ADDRESS", None)
        done = subprocess.run(
            [ray, "start", *place, *size], env=variables, capture_output=True, text=True, timeout=START_S
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _end(self, processes: list[psutil.Process], number: signal.Signals) -> None:
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(processes, timeout=10)


@dataclass(kw_only=True)
class ClusterRun(PairRun):
    """A run of the pair with one rank of each policy on each of the two nodes."""

    cluster: TwoNodes
    killed: list[str] = field(default_factory=list)

    def command(self) -> list[str]:
        return [*super().command(), "trainer.nnodes=2", "trainer.n_gpus_per_node=1"]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self.cluster.variables, "RAY_ADDRESS": self.cluster.address}

    def loses_second_node(self, *, at: str, halted: bool) -> tuple[Finished, float]:
        """Start, kill the second node when `at` (audited_trainer) has come, wait for the end.

        Args:
            halted: stand still there, as a run does whose dead partner does not answer.

        Returns:
            How the command ended, and the seconds from the kill to the end.
        """
        log = self.folder / f"log.{time.monotonic_ns()}.txt"
        extra = {"LONGSHORT_HALT_AT": at} if halted else {}
        with ThreadPoolExecutor(1) as pool:
            environment = {**self.environment(), **extra}
            future = pool.submit(run_command, self.command(), log=log, timeout_s=FATE_S, environment=environment)
            while not self._has_come(at):
                assert not future.done(), future.result().tail
                time.sleep(0.05)
            self.killed = self.cluster.kill_second()
            began = time.monotonic()
            finished = future.result()
        return finished, time.monotonic() - began

    def _has_come(self, moment: str) -> bool:
        name, _, step = moment.rpartition("-")
        return any(e.get("halted") == moment or e.get(name) == int(step) for e in self.audit())
