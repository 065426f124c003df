"""Names of verl's vLLM modules, read in their source: importing them needs vLLM."""

import ast
import importlib.util
from functools import cache
from pathlib import Path

NEEDS_VLLM = "verl.workers.rollout.vllm_rollout"
"""Package whose import fails without vLLM."""


@cache
def source(module: str) -> str:
    """The source of a module of verl, which is not imported."""
    spec = importlib.util.find_spec("verl")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0], *module.split(".")[1:])
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


def find(module: str, name: str) -> ast.AST:
    """Class, function or method `name` (dotted) of a module; for a re-exported name, the import.

    Raises LookupError when there is none.
    """
    node: ast.AST = ast.parse(source(module))
    for part in name.split("."):
        node = _member(node, part, f"{module}:{name}")
    return node


def parameters(module: str, name: str) -> tuple[str, ...]:
    """Parameters of a function, or of a class's `__init__` without self."""
    found = find(module, name)
    if isinstance(found, ast.ClassDef):
        return parameters(module, f"{name}.__init__")[1:]
    assert isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef), f"{module}:{name} is no function"
    given = found.args
    plain = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    stars = [star for star in (given.vararg, given.kwarg) if star is not None]
    return tuple(argument.arg for argument in [*plain, *stars])


def _member(node: ast.AST, name: str, where: str) -> ast.AST:
    for child in ast.walk(node) if isinstance(node, ast.Module) else ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name == name:
            return child
        if isinstance(child, ast.ImportFrom) and name in [a.asname or a.name for a in child.names]:
            return child
    raise LookupError(f"verl has no {where}")
