"""A new verl that renames what this package relies on fails here first, and says where it is used."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from helpers.verl_names import EXACT, TOUCHES, Touch
from helpers.verl_source import NEEDS_VLLM, find, parameters

from verl_longshort import verl_plugin
from verl_longshort.verl_plugin.run.cluster import CPUS_PER_DEVICE

PACKAGE = Path(verl_plugin.__file__).parent


def imports_of_verl() -> list[tuple[str, str, str]]:
    """(our file, module of verl, name) of every `from verl… import name` in the package."""
    found = set()
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "verl":
                found.update((str(file.relative_to(PACKAGE)), node.module or "", a.name) for a in node.names)
    return sorted(found)


def resolve(module: str, name: str) -> object:
    found: object = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("ours", "module", "name"), imports_of_verl(), ids=str)
def test_verl_has_what_is_imported(ours: str, module: str, name: str) -> None:
    if module.startswith(NEEDS_VLLM):
        assert find(module, name)
        return
    assert hasattr(importlib.import_module(module), name), f"{ours} imports {name} from {module}"


@pytest.mark.parametrize(("ours", "touch"), [(o, t) for o, ts in TOUCHES.items() for t in ts], ids=str)
def test_verl_has_what_is_relied_on(ours: str, touch: Touch) -> None:
    in_source = touch.module.startswith(NEEDS_VLLM)
    found = find(touch.module, touch.name) if in_source else resolve(touch.module, touch.name)
    if touch.parameters is None:
        return
    accepted: tuple[str, ...] = (
        parameters(touch.module, touch.name) if in_source else tuple(inspect.signature(found).parameters)  # type: ignore[arg-type]
    )
    if touch.match == EXACT:
        assert accepted == touch.parameters, f"{ours} overrides {touch}"
    else:
        assert set(touch.parameters) <= set(accepted), f"{ours} calls {touch}"


@pytest.mark.parametrize("ours", TOUCHES)
def test_table_names_files_that_exist(ours: str) -> None:
    assert (PACKAGE / ours).exists()


def test_verl_reserves_as_many_cpus_with_a_device_as_ours_counts() -> None:
    from verl.single_controller.ray import ResourcePoolManager

    assert ResourcePoolManager.max_colocate_count == CPUS_PER_DEVICE
