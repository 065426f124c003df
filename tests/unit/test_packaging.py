"""What is in the wheel, and that recipes work from it without a checkout."""

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
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, as pip would put it into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A copy: building leaves files beside the sources.
    subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], check=True, stdout=(folder / "files").open("wb"))
    needed = ("verl_longshort/", "recipes/", "pyproject", "README", "LICENSE")
    for name in (folder / "files").read_text().split("\0")[:-1]:
        if name.startswith(needed) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(command, check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_has_what_is_read_at_run_time(installed: Path) -> None:
    package = installed / "verl_longshort"
    for name in (
        *("py.typed", "config/longshort_trainer.yaml", "config/llm/default.yaml", "recipe/assumptions.yaml"),
        *("evaluation/paper_results.csv", "report/templates/page.css", "report/templates/reader.js"),
        *("recipes/tiny.yaml", "recipes/paper.yaml", "recipes/qwen7b.yaml", "recipes/llama8b_controls.yaml"),
    ):
        assert (package / name).is_file(), name
    assert not (installed / "longshort_reward").exists()


def test_both_distributions_have_the_license(installed: Path) -> None:
    assert len(list(installed.glob("verl_longshort-*.dist-info/licenses/LICENSE"))) == 1
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "reward" / "LICENSE").read_bytes()


def test_a_recipe_is_planned_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT / 'reward'}", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "verl_longshort.cli", "recipe", "qwen7b", "--dry-run", "output=out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=500)
    # No GPU and no Hub here: the plan names what is missing, stage by stage, and that is what it is for.
    assert "evaluate-L4S2" in done.stdout, done.stdout + done.stderr
    assert "no such file" not in done.stdout
    assert not (tmp_path / "out").exists()
