"""The commands that work on files, one module each; a new one is a new file here.

A module defines one `Stage`. `all_stages` finds them; the command line and the dry run are made from that.
"""

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

from verl_longshort.base.stage import Stage


@cache
def all_stages() -> dict[str, Stage[Any, Any]]:
    """All stages by name. Raises RuntimeError for a module that does not define exactly one."""
    stages = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        loaded = importlib.import_module(module.name)
        own = [
            kind
            for kind in vars(loaded).values()
            if inspect.isclass(kind) and issubclass(kind, Stage) and kind.__module__ == module.name
        ]
        if len(own) != 1:
            raise RuntimeError(f"{module.name} must define one Stage and defines {len(own)}")
        stage = own[0]()
        stages[stage.name] = stage
    return stages
