"""Beside another verl the plug-in stays off, and the commands say why."""

import subprocess
import sys
from pathlib import Path

import pytest

LOOK = """
import warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    from verl_longshort.verl_plugin import plugin
import wrapt.importer
print([str(one.message) for one in said])
print(plugin.LOAD_ERROR, any(name.startswith("verl.") for name in wrapt.importer._post_import_hooks))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Finds a verl 0.7.0 before the installed one."""
    (tmp_path / "verl").mkdir()
    (tmp_path / "verl/__init__.py").write_text("raise RuntimeError('nobody should import it')\n")
    described = tmp_path / "verl-0.7.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: verl\nVersion: 0.7.0\n")
    return {"PYTHONPATH": ":".join([str(tmp_path), *sys.path]), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120)


def test_verls_own_runs_are_untouched_and_one_warning_says_so(environment: dict[str, str]) -> None:
    said, state = run(environment, "-c", LOOK).stdout.splitlines()
    assert said == "['verl-longshort is made for verl~=0.9.1 and stays off: verl 0.7.0 is installed']"
    assert state == "None False"
    again = {**environment, "LONGSHORT_OTHER_VERL": "0.7.0"}
    assert run(again, "-c", LOOK).stdout.splitlines() == ["[]", "None False"]


@pytest.mark.parametrize("command", ["train", "train-single", "sft"])
def test_a_training_says_it_in_one_line(environment: dict[str, str], command: str) -> None:
    done = run(environment, "-m", "verl_longshort.cli", command, "device=cpu")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert "verl = 0.7.0: verl-longshort" in line
    assert "is made for verl~=0.9.1: pip install 'verl~=0.9.1'" in line
