"""The section with the facts of each run: what was run, on what, with which models, and how long it took."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verl_longshort.report.page import Section, fragment
from verl_longshort.report.run_dir import Run

_WORD = re.compile(r"[\w.+-]+")
ARCHITECTURE = ("model_type", "num_hidden_layers", "hidden_size", "vocab_size")


def facts_section(runs: Sequence[Run]) -> Section:
    """The facts of all runs."""
    context = {"facts": [_facts(run) for run in runs], "several": len(runs) > 1}
    title = "The run" if len(runs) == 1 else "The runs"
    return Section(id="run", title=title, body=fragment("facts.html.jinja", context))


def _facts(run: Run) -> dict[str, Any]:
    # A header names a model by its path, or by [path, files].
    named = [model for one in run.evaluations for model in one.header["models"].values()]
    paths = {str(model[0] if isinstance(model, list) else model) for model in named}
    settings = run.record.settings if run.record else {}
    return {
        "run": run,
        "models": {_short(path, run.root): _describe(Path(path)) for path in sorted(paths)},
        # The pair's: a model alone has other ones.
        "limits": next((one.header["limits"] for one in run.evaluations if not one.is_alone), {}),
        "stages": _stages(run),
        # Those that are a number or a word; the rest is in the stages' commands.
        "settings": {
            key: value
            for key, value in settings.items()
            if isinstance(value, int | float) or (isinstance(value, str) and _WORD.fullmatch(value))
        },
    }


def _short(path: str, root: Path) -> str:
    try:
        return str(Path(path).resolve().relative_to(root.resolve()))
    except ValueError:
        return path


def _describe(folder: Path) -> str:
    config = folder / "config.json"
    if not config.is_file():
        return "not on this machine any more"
    content = json.loads(config.read_text(encoding="utf-8"))
    return ", ".join(f"{key} {content[key]}" for key in ARCHITECTURE if key in content)


def _stages(run: Run) -> list[dict[str, Any]]:
    commands = run.record.stages if run.record else {}
    seconds = {name: marker.seconds if marker else 0.0 for name, marker in run.stages.items()}
    longest = max(seconds.values(), default=0.0)
    return [
        {
            "name": name,
            "status": marker.status if marker else "not begun",
            "seconds": seconds[name],
            # Of the longest stage.
            "share": seconds[name] / longest if longest else 0.0,
            "command": commands.get(name),
        }
        for name, marker in run.stages.items()
    ]
