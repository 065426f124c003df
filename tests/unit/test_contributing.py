"""The examples of CONTRIBUTING.md are changes that apply to this checkout."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = dict(re.findall(r"^### (.+?)\n.*?^```diff\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.S | re.M))


def test_there_is_an_example_of_everything() -> None:
    things = ("A reward term", "A benchmark", "A chunker", "An engine", "A stage", "A recipe for another base")
    assert tuple(EXAMPLES) == things


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_applies(name: str) -> None:
    subprocess.run(["git", "apply", "--check", "-"], input=EXAMPLES[name], text=True, cwd=ROOT, check=True)
