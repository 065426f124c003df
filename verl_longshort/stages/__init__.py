"""The commands that work on files, one module each; a new one is a new file here.

A module defines one `Stage`. `all_stages` finds them; the command line and the dry run are made from that.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import click
from longshort_reward.settings import Settings

from verl_longshort.base.requirements import GenerationWork, Product, Requirements
from verl_longshort.base.stage import Stage
from verl_longshort.engines.factory import generating
from verl_longshort.llm.settings import LLMSettings, asked_model

FOLDER = click.Option(["--out"], type=click.Path(path_type=Path), required=True, help="Folder to write.")
SEED = click.Option(["--seed"], type=int, default=0, show_default=True)


class FolderAndSeed(Settings):
    """The options FOLDER and SEED."""

    out: Path
    seed: int


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


def asking(command: str, model: LLMSettings | None, records: int | None, products: Sequence[Product]) -> Requirements:
    """Of a command that asks a language model, if one is configured, once about each record."""
    if model is None:
        return Requirements(command=command, products=tuple(products))
    work = GenerationWork(engines=(asked_model(model),), records=records, new_tokens=model.max_tokens)
    return generating(command, work, products)
