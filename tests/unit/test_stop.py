"""SIGTERM to the command of a run: what the trainer is told, how long it has, and the status."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import click
import pytest
import ray
from click.testing import CliRunner
from omegaconf import OmegaConf

from verl_longshort.base.checkpoint import TRACKER
from verl_longshort.base.errors import RunStoppedError
from verl_longshort.cli import _Group
from verl_longshort.verl_plugin.run.runner import WatchedRunner
from verl_longshort.verl_plugin.run.stop import StopFile, StopOnTerm


def wait_for(condition):
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.fixture
def stopper(tmp_path):
    """With the calls that end the run at once."""
    made = []

    def make(grace_s):
        ended = threading.Event()
        stop = StopOnTerm(tmp_path, ended.set, grace_s)
        made.append(stop)
        return stop, ended

    before = signal.getsignal(signal.SIGTERM)
    yield make
    for stop in made:
        stop.restore()
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_trainer_is_asked_and_ends_in_time(stopper, tmp_path):
    stop, ended = stopper(60)
    stop.install(is_running=False)
    stop.install(is_running=True)
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for(lambda: stop.is_asked)
    # a second one changes nothing
    os.kill(os.getpid(), signal.SIGTERM)
    assert StopFile(tmp_path).is_asked()
    with pytest.raises(RunStoppedError, match="stopped by SIGTERM: there is no checkpoint yet"):
        StopFile(tmp_path).check()
    (tmp_path / TRACKER).write_text("4")
    with pytest.raises(RunStoppedError, match="the same command goes on from step 4"):
        StopFile(tmp_path).check()
    stop.restore()
    assert not ended.is_set()
    assert not StopFile(tmp_path).is_asked()
    StopFile(tmp_path).check()


def test_a_run_that_takes_too_long_is_ended(stopper):
    stop, ended = stopper(0.05)
    stop.install(is_running=True)
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for(ended.is_set)


def test_before_the_run_it_ends_at_once(stopper, tmp_path):
    stop, _ = stopper(60)
    stop.install(is_running=False)
    with pytest.raises(RunStoppedError):
        os.kill(os.getpid(), signal.SIGTERM)
    assert not StopFile(tmp_path).is_asked()


def test_the_status_is_that_of_a_signal():
    def stopped() -> None:
        raise RunStoppedError("stopped by SIGTERM: the same command goes on from step 4")

    group = _Group(commands={"train": click.Command("train", callback=stopped)})
    result = CliRunner().invoke(group, ["train"])
    assert result.exit_code == 143
    assert result.output == "Error: stopped by SIGTERM: the same command goes on from step 4\n"


def test_the_run_takes_the_signal_back_from_ray(monkeypatch, tmp_path):
    class Runner:
        @classmethod
        def options(cls, **_):
            return cls

        @classmethod
        def remote(cls):
            return cls

    node = SimpleNamespace(get_logs_dir_path=lambda: "logs")
    monkeypatch.setattr(ray._private.worker.global_worker, "node", node, raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    trainer = {"n_gpus_per_node": 1, "nnodes": 1, "default_local_dir": str(tmp_path)}
    config = OmegaConf.create(
        {"trainer": trainer, "ray_kwargs": {"ray_init": {"address": None}}, "longshort": {"phase_timeout_s": 1}}
    )
    runner = WatchedRunner(Runner, config, pools=1, models={}, command=())
    monkeypatch.setattr(runner._processes, "start", lambda: None)
    runner.stop.install(is_running=False)
    try:
        # as ray.init does it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        runner.remote()
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: runner.stop.is_asked)
        assert StopFile(tmp_path).is_asked()
    finally:
        runner.stop.restore()
