"""What is in the distributions, and that commands and recipes work from them without a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[2]


def test_every_package_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"]) - {"verl_longshort.recipes"}
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "verl_longshort").rglob("*.py")}
    assert listed == {".".join(folder.parts) for folder in folders}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what both distributions are built from: building leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("source")
    needed = ("verl_longshort", "recipes", "reward", "pyproject.toml", "README.md", "LICENSE")
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", *needed], check=True, capture_output=True, text=True)
    for name in listed.stdout.split("\0")[:-1]:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def dist(tracked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist of each distribution, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    for source in (tracked / "reward", tracked):
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source]
        subprocess.run(command, check=True, timeout=300, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both wheels, as pip puts them into site-packages."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*command, "--target", folder, *sorted(dist.glob("*.whl"))], check=True, timeout=300)
    return folder


def outside(installed: Path) -> dict[str, str]:
    """The environment of a command that sees the wheels, not the checkout."""
    return {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}


def test_the_wheels_hold_every_tracked_file_of_their_packages(tracked: Path, dist: Path) -> None:
    contents = {
        "verl_longshort/recipes/": ("verl_longshort", tracked / "recipes"),
        "verl_longshort/": ("verl_longshort", tracked / "verl_longshort"),
        "longshort_reward/": ("longshort_reward", tracked / "reward" / "longshort_reward"),
    }
    assert len(list(dist.iterdir())) == 4
    for wheel in dist.glob("*.whl"):
        package = wheel.name.split("-")[0]
        assert all(name.startswith((f"{package}/", f"{package}-")) for name in zipfile.ZipFile(wheel).namelist())
    for inside, (name, source) in contents.items():
        (wheel,) = dist.glob(f"{name}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            found = {name: archive.read(name) for name in archive.namelist() if name.startswith(inside)}
        if inside == "verl_longshort/":
            found = {name: data for name, data in found.items() if not name.startswith("verl_longshort/recipes/")}
        files = [file for file in source.rglob("*") if file.is_file()]
        # The recipes' scripts are for a checkout; a wheel has `longshort recipe`.
        expected = [file for file in files if source.name != "recipes" or file.suffix == ".yaml"]
        assert found == {f"{inside}{file.relative_to(source)}": file.read_bytes() for file in expected}


def test_the_wheel_has_what_is_read_at_run_time(installed: Path) -> None:
    package = installed / "verl_longshort"
    for name in (
        *("py.typed", "config/longshort_trainer.yaml", "config/llm/default.yaml", "recipe/assumptions.yaml"),
        *("evaluation/paper_results.csv", "evaluation/other_methods.yaml"),
        *("report/templates/page.css", "report/templates/reader.js"),
        *("serve/templates/page.html", "sharing/templates/card.md.jinja", "config/export.yaml", "config/chat.yaml"),
        *("recipes/tiny.yaml", "recipes/paper.yaml", "recipes/qwen7b.yaml", "recipes/llama8b_controls.yaml"),
    ):
        assert (package / name).is_file(), name


def test_both_distributions_have_the_license(installed: Path) -> None:
    for name in ("verl_longshort", "longshort_reward"):
        assert len(list(installed.glob(f"{name}-*.dist-info/licenses/LICENSE"))) == 1
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "reward" / "LICENSE").read_bytes()


@pytest.mark.parametrize(
    ("command", "shown"), [(["doctor", "--no-ray"], "nothing is off"), (["serve", "--help"], "--long-url")]
)
def test_the_installed_command_works(installed: Path, tmp_path: Path, command: list[str], shown: str) -> None:
    done = subprocess.run(
        [sys.executable, installed / "bin" / "longshort", *command],
        **{"capture_output": True, "text": True, "cwd": tmp_path, "env": outside(installed), "timeout": 500},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown in done.stdout


@pytest.mark.slow
def test_a_recipe_is_planned_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "verl_longshort.cli", "recipe", "qwen7b", "--dry-run", "output=out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=outside(installed), timeout=500)
    # No GPU and no Hub here: the plan names what is missing, stage by stage, and that is what it is for.
    assert "evaluate-L4S2" in done.stdout, done.stdout + done.stderr
    assert "no such file" not in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_both_distributions_work_in_a_bare_environment() -> None:
    subprocess.run(["bash", ROOT / "tests" / "bare_install.sh"], check=True, timeout=1700)
