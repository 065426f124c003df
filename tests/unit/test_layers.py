"""Which room of the package imports which: downwards only, and verl below one room only."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import longshort_reward

import verl_longshort
from verl_longshort.engines.registry import ENGINES

ROOMS = (
    "longshort_reward",
    "core",
    "config",
    "base",
    "engines",
    "problems",
    "llm",
    "world",
    "data",
    "evaluation",
    "report",
    "sharing",
    "serve",
    "chat",
    "verl_plugin",
    "stages",
    "recipe",
    "planner",
    "cli",
)
"""From the ground up; a room imports itself and those before it."""

VERL_ROOM = "verl_plugin"
VERL_PACKAGES = (
    "versions",
    "platform",
    "rollout",
    "plugin",
    "run",
    "checks",
    "trainer",
    "sft",
    "requirements",
    "launch",
    "doctor",
)
"""What lies in that room, from the ground up."""
VERLS = {"verl", "transfer_queue", "tensordict"}
"""verl, and what comes with it alone."""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of both distributions."""
    found = {}
    for package in (longshort_reward, verl_longshort):
        root = Path(str(package.__file__)).parent
        for file in root.rglob("*.py"):
            parts = file.relative_to(root.parent).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every import below `tree`: `a.b` for `import a.b`, `a.b.c` for `from a.b import c`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def room_of(module: str) -> str | None:
    """The room of a module of ours; None for the package itself and for other packages."""
    package, _, rest = module.partition(".")
    if package == longshort_reward.__name__:
        return package
    return rest.partition(".")[0] or None if package == verl_longshort.__name__ else None


def test_every_module_lies_in_a_room() -> None:
    assert {room_of(module) for module in modules()} - {None} == set(ROOMS)


def test_rooms_import_downwards_only() -> None:
    floor = {room: number for number, room in enumerate(ROOMS)}
    upwards = [
        f"{module}:{line} imports {name}"
        for module, tree in modules().items()
        for line, name in imported(tree)
        if (own := room_of(module)) and floor.get(room_of(name) or own, -1) > floor[own]
    ]
    assert not upwards


def test_packages_of_the_verl_room_import_downwards_only() -> None:
    floor = {package: number for number, package in enumerate(VERL_PACKAGES)}
    prefix = f"{verl_longshort.__name__}.{VERL_ROOM}."
    own = {module.removeprefix(prefix).split(".")[0]: module for module in modules() if module.startswith(prefix)}
    assert own.keys() == floor.keys()
    upwards = [
        f"{module}:{line} imports {name}"
        for module, tree in modules().items()
        for line, name in imported(tree)
        if module.startswith(prefix)
        and name.startswith(prefix)
        and floor[name.removeprefix(prefix).split(".")[0]] > floor[module.removeprefix(prefix).split(".")[0]]
    ]
    assert not upwards


def test_only_one_room_knows_verl() -> None:
    elsewhere = [
        f"{module}:{line} imports {name}"
        for module, tree in modules().items()
        for line, name in imported(tree)
        if name.partition(".")[0] in VERLS and room_of(module) != VERL_ROOM
    ]
    assert not elsewhere


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module, tree in modules().items():
        at_once = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        names = [name for _, name in imported(at_once)]
        targets = {name if name in modules() else name.rpartition(".")[0] for name in names}
        graph[module] = targets & modules().keys() - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_no_code_compares_an_engines_name() -> None:
    compared = [
        f"{module}:{node.lineno} compares with {part.value}"
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for operand in (node.left, *node.comparators)
        for part in getattr(operand, "elts", [operand])
        if isinstance(part, ast.Constant) and part.value in ("sglang", *ENGINES)
    ]
    assert not compared, "ask what the engine can do: verl_longshort/engines/spec.py"
