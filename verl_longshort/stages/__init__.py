"""The commands that work on files, one module each; a new one is a new file here.

A module defines one `Stage` and has its name: `tiny_base.py` is `tiny-base`, and `prepare_chains.py` is
`prepare chains`, a command of a group. So a command imports its own module alone; the command line and the dry run are
made from that.
"""

import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

import click
from longshort_reward.settings import Settings

from verl_longshort.base.stage import Stage

GROUPS = {"prepare": "Fetch and check problems and chains of thought."}
"""First word of commands whose names have two -> help text."""

FOLDER = click.Option(["--out"], type=click.Path(path_type=Path), required=True, help="Folder to write.")
SEED = click.Option(["--seed"], type=int, default=0, show_default=True)


class FolderAndSeed(Settings):
    """The options FOLDER and SEED."""

    out: Path
    seed: int


@cache
def stage_modules() -> dict[str, str]:
    """Modules of all stages, by the names of the stages; nothing is imported."""
    modules = {}
    for module in pkgutil.iter_modules(__path__):
        first, _, rest = module.name.partition("_")
        words = [first, rest] if first in GROUPS else [module.name]
        modules[" ".join(words).replace("_", "-")] = f"{__name__}.{module.name}"
    return modules


@cache
def stage_of(name: str) -> Stage[Any, Any]:
    """One of `stage_modules`. Raises RuntimeError for a module that does not define exactly one, of its name."""
    module = stage_modules()[name]
    own = [
        kind
        for kind in vars(importlib.import_module(module)).values()
        if inspect.isclass(kind) and issubclass(kind, Stage) and kind.__module__ == module
    ]
    if len(own) != 1:
        raise RuntimeError(f"{module} must define one Stage and defines {len(own)}")
    stage: Stage[Any, Any] = own[0]()
    if stage.name != name:
        raise RuntimeError(f"{module} must define the stage {name!r} and defines {stage.name!r}: rename one of them")
    return stage


def all_stages() -> dict[str, Stage[Any, Any]]:
    """All stages by name. Raises as `stage_of`."""
    return {name: stage_of(name) for name in stage_modules()}
