"""`longshort doctor` as a user runs it: fine here, and saying why when it is not."""

import sys
from pathlib import Path

import pytest
from helpers.harness import run_command

from verl_longshort.verl_plugin.doctor import inspect_worker

pytestmark = pytest.mark.integration
DOCTOR = [sys.executable, "-m", "verl_longshort.cli", "doctor"]


def test_everything_is_registered_here_and_in_a_ray_worker(tmp_path: Path) -> None:
    done = run_command(DOCTOR, log=tmp_path / "log.txt", timeout_s=180).expect_success()
    assert "nothing is off" in done.output
    assert done.output.count("PairTrainer") == 2


def test_a_cluster_that_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    (finding,) = inspect_worker(timeout_s=5)
    assert finding.problem.startswith("the cluster RAY_ADDRESS=127.0.0.1:1 gave no answer within 5 s")


def test_a_plugin_that_verl_was_told_not_to_load(tmp_path: Path) -> None:
    done = run_command(
        [*DOCTOR, "--no-ray"],
        log=tmp_path / "log.txt",
        timeout_s=60,
        environment={"VERL_USE_EXTERNAL_PLUGINS": "none"},
    )
    assert done.status == 1
    assert "VERL_USE_EXTERNAL_PLUGINS = none: keeps verl from loading the plug-in" in done.output


def test_a_plugin_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "wrapt.py").write_text("raise ImportError('no wrapt for this Python')")
    done = run_command(
        [*DOCTOR, "--no-ray"],
        log=tmp_path / "log.txt",
        timeout_s=60,
        environment={"PYTHONPATH": str(tmp_path)},
    )
    assert done.status == 1
    assert "ImportError: no wrapt for this Python" in done.output


def test_a_gpu_build_beside_a_cpu_torch(tmp_path: Path) -> None:
    package = tmp_path / "torchaudio"
    package.mkdir()
    (package / "version.py").write_text("__version__ = '2.11.0+cu130'")
    (package / "__init__.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    done = run_command(
        [*DOCTOR, "--no-ray"],
        log=tmp_path / "log.txt",
        timeout_s=60,
        environment={"PYTHONPATH": str(tmp_path)},
    )
    assert done.status == 1
    assert "2.11.0+cu130 does not load beside torch" in done.output
    assert "libcudart.so.13" in done.output
