"""Two runs into one folder: the second is refused at once, with the first's process."""

import os
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from longshort_reward.errors import UserError
from omegaconf import OmegaConf

from verl_longshort.base.lock import Lock, held
from verl_longshort.base.stage import TrainingSettings, execute
from verl_longshort.cli import main
from verl_longshort.stages import all_stages

HOLDER = """
import sys, time
from pathlib import Path
from verl_longshort.base.lock import Lock, held
with held(Lock(file=Path(sys.argv[1]), key="k", value="v", holder="another run")):
    print("held", flush=True)
    time.sleep(60)
"""


def lock_at(file):
    return Lock(file=file, key="trainer.default_local_dir", value=file.parent, holder="another run")


@pytest.fixture
def elsewhere():
    """Holds a lock in another process; killed in the end, or before by the test."""
    started = []

    def hold(file):
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(file)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()


def test_the_second_is_told_who_is_there(tmp_path, elsewhere):
    file = tmp_path / "run" / ".lock"
    process = elsewhere(file)
    with pytest.raises(UserError) as error, held(lock_at(file)):
        pass
    assert f"another run is running there (process {process.pid} on {os.uname().nodename})" in str(error.value)
    process.kill()
    process.wait()
    with held(lock_at(file)):
        assert str(os.getpid()) in file.read_text()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"cannot be written to \(File exists\)"),
        held(lock_at(tmp_path / "file/.lock")),
    ):
        pass


@pytest.mark.parametrize("name", ["train", "train-single", "sft"])
def test_every_training_command_takes_it(tmp_path, elsewhere, monkeypatch, name):
    stage = all_stages()[name]
    config = {"trainer": {"default_local_dir": str(tmp_path / "out")}, "longshort": {"output_dir": f"{tmp_path}/out/"}}
    settings = TrainingSettings(config=OmegaConf.create(config), overrides=())
    elsewhere(stage.lock(settings).file)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(type(stage), "settings", lambda *_, **__: settings)
    monkeypatch.setattr(type(stage), "run", lambda *_: pytest.fail("it ran"))
    begin = time.monotonic()
    result = CliRunner().invoke(main, [name])
    assert time.monotonic() - begin < 5
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert "another run is running there (process" in line
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UserError):
        execute(stage)
