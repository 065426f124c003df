"""Runs a command that starts Ray and the trainer, with a time limit, and leaves no process of it behind.

Also writes what such a run needs: a tiny random model and a few data rows in verl's format.
"""

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from verl_longshort.world.tiny_tokenizer import build_tokenizer

RUN_MARK = "LONGSHORT_TEST_RUN"
STOP_GRACE_S = 5.0
TAIL_LINES = 60
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A command that ended: its exit status (None when it ran into the time limit), output and duration."""

    status: int | None
    output: str
    seconds: float

    @property
    def tail(self) -> str:
        return "\n".join(self.output.splitlines()[-TAIL_LINES:])

    def expect_success(self) -> "Finished":
        """This, if the command ended well; otherwise fails with the end of its output."""
        assert self.status is not None, f"still running after {self.seconds:.0f} s:\n{self.tail}"
        assert self.status == 0, f"exit status {self.status} after {self.seconds:.0f} s:\n{self.tail}"
        return self


def run_command(
    command: Sequence[str], *, log: Path, timeout_s: float, environment: Mapping[str, str] | None = None
) -> Finished:
    """Run `command` with its output in the file `log`; whatever it started is gone when this returns."""
    mark = uuid.uuid4().hex
    # A cluster of somebody else would be joined instead of started.
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    variables = {**inherited, **QUIET, **(environment or {}), RUN_MARK: mark}
    started = time.monotonic()
    with log.open("wb") as sink:
        process = subprocess.Popen(command, env=variables, stdout=sink, stderr=subprocess.STDOUT)
        try:
            status: int | None = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            seconds = time.monotonic() - started
            stop_marked(mark)
            process.wait()
    return Finished(status=status, output=log.read_text(errors="replace"), seconds=seconds)


def stop_marked(mark: str) -> None:
    """End every process that carries the mark in its environment, also those that Ray has detached."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        left = marked(RUN_MARK, mark)
        for process in left:
            _send(process, signal_number)
        psutil.wait_procs(left, timeout=STOP_GRACE_S)


def marked(variable: str, value: str) -> list[psutil.Process]:
    """The processes in whose environment a variable has this value."""
    return [process for process in psutil.process_iter() if _environment(process).get(variable) == value]


def alive(process: psutil.Process) -> bool:
    """Whether it runs: one that ended may stay a zombie, as its first parent is gone and pid 1 may not reap."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return {}


def _send(process: psutil.Process, signal_number: int) -> None:
    try:
        process.send_signal(signal_number)
    except psutil.NoSuchProcess:
        return


def write_model(folder: Path, *, seed: int = 0, hidden: int = 32, layers: int = 1) -> Path:
    """A random Llama with the miniature world's tokenizer, float32, in `folder`."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(file: Path, problems: Sequence[tuple[str, str]]) -> Path:
    """verl's RL rows for (problem, answer) pairs, as parquet."""
    rows = [
        {
            "data_source": "tiny",
            "prompt": [{"role": "user", "content": problem}],
            "reward_model": {"style": "rule", "ground_truth": answer},
            "extra_info": {"index": index},
        }
        for index, (problem, answer) in enumerate(problems)
    ]
    pd.DataFrame(rows).to_parquet(file)
    return file


def sums(count: int) -> list[tuple[str, str]]:
    """`count` problems in the words of the miniature world, with their answers."""
    pairs = [(index % 10, index // 10 % 10) for index in range(count)]
    return [(f"start {a} ; step {b} ?", str((a + b) % 10)) for a, b in pairs]


def read_metrics(file: Path) -> dict[int, dict[str, Any]]:
    """Step -> metrics, from what verl's "file" logger wrote."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {line["step"]: line["data"] for line in lines}
