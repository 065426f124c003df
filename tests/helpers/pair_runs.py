"""Starts `longshort train` on two tiny models, waits for it or kills it at a moment, reads its audit."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from longshort_reward.protocol import ROLES, Role

from helpers.harness import QUIET, RUN_MARK, Finished, alive, marked, run_command, sums, write_rows

HERE = Path(__file__).parent
TIMEOUT_S = 420
POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Started:
    """A run that is going on."""

    command: "subprocess.Popen[bytes]"
    mark: str
    log: Path

    def processes(self) -> list[psutil.Process]:
        return marked(RUN_MARK, self.mark)

    def ended_by(self, send: Callable[[], None]) -> Finished:
        """Send a signal and wait for the run to end by itself; fails when a process is left."""
        began = time.monotonic()
        send()
        status = self.command.wait(timeout=120)
        seconds = time.monotonic() - began
        _, left = psutil.wait_procs(self.processes(), timeout=15)
        assert not [one for one in left if alive(one)], left
        return Finished(status=status, output=self.log.read_text(errors="replace"), seconds=seconds)


@dataclass(kw_only=True)
class PairRun:
    """One run folder and the overrides every start of it uses."""

    folder: Path
    models: Mapping[Role, Path]
    overrides: list[str] = field(default_factory=list)
    problems: int = 16
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def audit_file(self) -> Path:
        return self.folder / "audit.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def command(self) -> list[str]:
        """The same for every start: a killed run goes on by being started again."""
        rows = self.folder / "rows.parquet"
        if not rows.exists():
            write_rows(rows, sums(self.problems))
        paths = [f"longshort.policies.{r}.actor_rollout_ref.model.path={self.models[r]}" for r in ROLES]
        settings = [
            "device=cpu",
            "trainer.v1.trainer_mode=longshort_audited",
            f"data.train_files={rows}",
            f"data.val_files={rows}",
            "data.train_batch_size=4",
            "data.max_prompt_length=16",
            "data.max_response_length=64",
            "actor_rollout_ref.actor.ppo_mini_batch_size=4",
            "actor_rollout_ref.actor.optim.lr=1e-3",
            "actor_rollout_ref.rollout.n=4",
            "actor_rollout_ref.rollout.temperature=1.0",
            "longshort.steps_per_round=1",
            "longshort.rollout_timeout_s=60",
            "longshort.environment.max_turns=6",
            "longshort.environment.long_turn_tokens=16",
            "longshort.environment.short_turn_tokens=16",
            "longshort.environment.token_budget=48",
            "longshort.environment.prompts.long=''",
            "longshort.environment.prompts.short=''",
            "trainer.val_before_train=false",
            f"trainer.default_local_dir={self.checkpoints}",
        ]
        return [sys.executable, "-m", "verl_longshort.cli", "train", *paths, *settings, *self.overrides]

    def environment(self) -> dict[str, str]:
        """Loads the audited trainer in every process."""
        return {
            "VERL_USE_EXTERNAL_MODULES": "audited",
            "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "LONGSHORT_AUDIT": str(self.audit_file),
            "TENSORBOARD_DIR": str(self.folder / "tensorboard"),
            **self.variables,
        }

    def to_end(self) -> Finished:
        """Run until it ends by itself; the output of its processes comes before that of its console."""
        log = self.folder / f"log.{time.monotonic_ns()}.txt"
        before = set(self.logs())
        done = run_command(self.command(), log=log, timeout_s=TIMEOUT_S, environment=self.environment())
        printed = "".join(file.read_text(errors="replace") for file in self.logs() if file not in before)
        return replace(done, output=f"{printed}\n{done.output}")

    def logs(self) -> list[Path]:
        """The log of each start."""
        return sorted((self.checkpoints / "logs").glob("train.*.log"))

    def killed_at(self, moment: str) -> None:
        """Run until `moment`, then `kill -9` every process of the run."""
        with self._started(f"killed-{moment}", moment):
            pass

    def lose(self, process: str, moment: str, signal_number: int = signal.SIGKILL) -> Finished:
        """Run until `moment`, then send a signal to one process and wait for the run to end by itself.

        `process` is a part of its name (`process_watch.actor_name`), or that of a process of Ray's head. What the
        command shows is in the output, and the seconds are those from the signal. Fails when a process is left.
        """
        with self._started(f"lost-{uuid.uuid4().hex[:6]}", moment) as started:
            names = [entry["processes"] for entry in self.audit() if "processes" in entry][-1]
            names |= {p.name(): p.pid for p in started.processes() if p.name() in ("raylet", "gcs_server")}
            (pid,) = [pid for name, pid in names.items() if process in name]
            return started.ended_by(lambda: os.kill(pid, signal_number))

    def stopped_at(self, moment: str) -> Finished:
        """Run until `moment`, at which the run does not wait, send the command SIGTERM, and wait for its end.

        The seconds are those from the signal. Fails when a process is left.
        """
        with self._started(f"stopped-{moment}", moment, variable="LONGSHORT_PASS_AT") as started:
            return started.ended_by(started.command.terminate)

    @contextmanager
    def _started(self, name: str, moment: str, *, variable: str = "LONGSHORT_HALT_AT") -> Iterator["Started"]:
        """The run at `moment`, which `variable` tells it; in the end every process of it is killed."""
        mark, already = uuid.uuid4().hex, len(self.audit())
        extra = {**QUIET, **self.environment(), RUN_MARK: mark, variable: moment}
        log = self.folder / f"log.{name}.txt"
        with log.open("wb") as sink:
            command = subprocess.Popen(
                self.command(), env={**os.environ, **extra}, stdout=sink, stderr=subprocess.STDOUT
            )
            try:
                self._wait_for(moment, command, log, already)
                yield Started(command=command, mark=mark, log=log)
            finally:
                left = marked(RUN_MARK, mark)
                for one in left:
                    one.kill()
                psutil.wait_procs(left, timeout=10)
                command.wait()

    def _wait_for(self, moment: str, process: "subprocess.Popen[bytes]", log: Path, already: int) -> None:
        """Wait for a moment of this start; `already`: how many entries earlier starts have written."""
        ends = time.monotonic() + TIMEOUT_S
        while not any(entry.get("halted") == moment for entry in self.audit()[already:]):
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-60:])
            assert process.poll() is None, f"ended before {moment}:\n{tail}"
            assert time.monotonic() < ends, f"{moment} did not come:\n{tail}"
            time.sleep(POLL_S)

    def audit(self) -> list[dict[str, Any]]:
        """Every entry of every start, in order."""
        if not self.audit_file.exists():
            return []
        return [json.loads(line) for line in self.audit_file.read_text().splitlines()]

    def steps(self) -> list[dict[str, Any]]:
        """The entries of training steps."""
        return [entry for entry in self.audit() if "step" in entry]

    def weights(self) -> list[dict[str, list[str]]]:
        """Checksums of the engines' weights: at the start, then after each step."""
        return [entry["weights"] for entry in self.audit() if "weights" in entry]
