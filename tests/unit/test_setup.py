"""The set-up script: which environment it takes, and that it works once. Nothing is installed here."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Stands for an interpreter: it knows a verl version, says what Python it is, and writes down what pip is
# asked for.
FAKE_PYTHON = """#!/bin/bash
case "$*" in
    *'v("verl")'*) [ -n "{verl}" ] && echo "{verl}" || exit 1 ;;
    *version_info*) exit {too_old} ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pip" ;;
    "-m pip --version") [ -e "$(dirname "$0")/../pip" ] ;;
    "-m pip show"*) exit 1 ;;
    "-m pip "*) echo "$*" >> "{log}"; sleep {seconds} ;;
    "--version") echo "Python 3.9.1" ;;
esac
"""


class Project:
    """A copy of the script in a project of its own, with a `PATH` that holds fake interpreters only."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self.log = folder / "project", folder / "bin", folder / "pip.log"
        (self.folder / "recipes").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(ROOT / "recipes" / "setup.sh", self.folder / "recipes")
        (self.folder / "reward").mkdir()
        for name in ("pyproject.toml", "reward/pyproject.toml"):
            (self.folder / name).write_text("one\n")

    def python(self, name: str, *, verl: str = "", too_old: bool = False, seconds: float = 0) -> None:
        script = FAKE_PYTHON.format(verl=verl, too_old=int(too_old), log=self.log, seconds=seconds)
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def start(self, command: str) -> "subprocess.Popen[str]":
        tools = [shutil.which(tool) for tool in ("bash", "dirname", "cksum", "flock", "cat", "mkdir", "mv", "cut")]
        tools += [shutil.which(tool) for tool in ("cp", "touch", "sleep")]
        for tool in filter(None, tools):
            link = self.bin / Path(tool).name
            if not link.exists():
                link.symlink_to(tool)
        return subprocess.Popen(
            ["bash", "-c", f"source {self.folder}/recipes/setup.sh; {command}"],
            env={"PATH": str(self.bin), "HOME": os.environ.get("HOME", "/")},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, command: str) -> tuple[int, str, str]:
        process = self.start(command)
        out, err = process.communicate(timeout=30)
        return process.returncode, out.strip(), err.strip()

    @property
    def installs(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("version", ["0.9.1", "0.9.2", "0.9.1.post1", "0.9.10"])
def test_an_active_environment_with_verl_is_used(project: Project, version: str) -> None:
    project.python("python", verl=version)
    code, out, _ = project.run("longshort_setup dev && command -v python")
    assert (code, out) == (0, str(project.bin / "python"))
    assert project.installs == [f"-m pip install -e {project.folder}/reward -e {project.folder}[dev]"]
    assert not (project.folder / ".venv").exists()


@pytest.mark.parametrize("version", ["0.7.0", "0.9.0", "0.10.0", "0.10.0.dev0", "1.9.1"])
def test_another_verl_is_refused(project: Project, version: str) -> None:
    project.python("python", verl=version)
    code, _, err = project.run("longshort_setup")
    assert code == 1
    assert f"has verl {version}, this project needs ~=0.9.1; deactivate it or run" in err


def test_without_verl_a_venv_is_made_once(project: Project) -> None:
    project.python("python3")
    code, out, err = project.run("longshort_setup && command -v python")
    assert (code, out) == (0, str(project.folder / ".venv/bin/python")), err
    assert any("torch==" in line and "--no-deps" in line for line in project.installs)
    installed = project.installs
    begin = time.monotonic()
    assert project.run("longshort_setup && command -v python")[:2] == (0, out)
    assert time.monotonic() - begin < 1
    assert project.installs == installed


def test_a_changed_pyproject_is_installed_again(project: Project) -> None:
    project.python("python3")
    project.run("longshort_setup")
    before = len(project.installs)
    for name in ("pyproject.toml", "reward/pyproject.toml"):
        (project.folder / name).write_text("two\n")
        project.run("longshort_setup")
        assert len(project.installs) > before, name
        before = len(project.installs)


def test_two_setups_at_once_install_once(project: Project) -> None:
    project.python("python3", seconds=0.3)
    first, second = project.start("longshort_setup"), project.start("longshort_setup")
    messages = [process.communicate(timeout=60)[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), messages
    assert sum("torch==" in line for line in project.installs) == 1
    assert "another setup is at work" in "".join(messages)


def test_no_suitable_python_is_said(project: Project) -> None:
    project.python("python3", too_old=True)
    code, _, err = project.run("longshort_setup")
    assert code == 1
    assert "Python 3.10, 3.11 or 3.12 is needed, and none is on the PATH (python3 is: Python 3.9.1)" in err


def test_a_failed_install_is_tried_again(project: Project) -> None:
    project.python("python3")
    (project.bin / "python3").write_text((project.bin / "python3").read_text().replace("sleep 0", "exit 1", 1))
    assert project.run("longshort_setup")[0] == 1
    project.python("python3")
    shutil.copy(project.bin / "python3", project.folder / ".venv/bin/python")
    assert project.run("longshort_setup")[0] == 0
