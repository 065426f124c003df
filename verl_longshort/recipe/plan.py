"""A recipe's YAML as typed, checked data.

include: paper.yaml                # optional: a recipe beside this one; what is said here wins
output: runs/tiny                  # logs, markers and every output lie below it
environment: {OMP_NUM_THREADS: 1}  # optional, for all stages
anything: else                     # values for ${...} below
stages:
  - name: world
    minutes: 0.5                   # expected, for the estimate of the time left
    command: longshort world --out ${output}/world   # a string for bash, or a list of arguments
    outputs: [${output}/world/train.parquet]         # must exist when the stage has ended
  - parallel:                      # stages that do not need each other
      - {name: sft-long, ...}
      - {name: sft-short, ...}
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from verl_longshort.recipe.assumptions import defaults

STAGE_KEYS = frozenset({"name", "minutes", "command", "outputs"})
STALL_MINUTES = 30.0
_ABSENT = object()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a recipe: a command and what it leaves behind."""

    name: str
    minutes: float
    """Expected time on the machine the recipe was written for."""
    command: tuple[str, ...]
    """Arguments of the process."""
    outputs: tuple[Path, ...]
    """Files and folders that a finished stage has written."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe. The stages of one group run at the same time, the groups one after the other."""

    output: Path
    groups: tuple[tuple[Stage, ...], ...]
    environment: Mapping[str, str]
    stall_minutes: float
    """A stage that neither writes to its log nor reports progress for so long is ended."""
    show: Path | None
    """A text file to print when all stages are done."""
    settings: Mapping[str, Any]
    """The recipe's keys but `stages`, with the overrides applied."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages in order."""
        return tuple(stage for group in self.groups for stage in group)

    def fingerprints(self) -> dict[str, str]:
        """For each stage a hash of its command and of all that comes before it: a change reaches all after
        it.
        """
        result: dict[str, str] = {}
        before = ""
        for group in self.groups:
            for stage in group:
                text = json.dumps([before, stage.command, [str(path) for path in stage.outputs]])
                result[stage.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
            before = "".join(result[stage.name] for stage in group)
        return result


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which stages of a plan are run. The others are taken as they are, done or not."""

    only: tuple[str, ...] = ()
    """These; empty: all."""
    first: str | None = None
    """This one and those after it, and what runs beside it."""

    def groups(self, plan: Plan) -> tuple[tuple[Stage, ...], ...]:
        """The plan's groups without other stages. Raises UserError for a stage that it does not have."""
        names = [stage.name for stage in plan.stages]
        for key, wanted in (("--only", self.only), ("--from", (self.first,) if self.first else ())):
            for name in wanted:
                if name not in names:
                    raise UserError(key, name, f"no such stage; the stages are {', '.join(names)}")
        groups = plan.groups
        if self.first is not None:
            begin = next(k for k, group in enumerate(groups) if self.first in [s.name for s in group])
            groups = groups[begin:]
        kept = (tuple(s for s in group if not self.only or s.name in self.only) for group in groups)
        return tuple(group for group in kept if group)


def load_plan(path: Path, overrides: Sequence[str]) -> Plan:
    """The recipe in `path` with `overrides` (`key=value`) applied.

    Raises UserError when it cannot be used.
    """
    content = _resolved(path, overrides)
    if "output" not in content:
        raise UserError("output", path, "the recipe needs a folder for its results")
    output = Path(content["output"])
    groups = [_group(entry, output) for entry in _listed(content, "stages")]
    names = [stage.name for group in groups for stage in group]
    for name in names:
        if names.count(name) > 1:
            raise UserError("stages.name", name, "is used twice; every stage needs its own name")
    return Plan(
        output=output,
        groups=tuple(groups),
        environment={key: str(value) for key, value in content.get("environment", {}).items()},
        stall_minutes=float(content.get("stall_minutes", STALL_MINUTES)),
        show=Path(content["show"]) if "show" in content else None,
        settings={key: value for key, value in content.items() if key != "stages"},
    )


def _resolved(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    if not path.is_file():
        raise UserError("recipe", path, "no such file; recipes/ has those of the project")
    try:
        # gpu, assume and their like, for the plan of a dry run, lie below the recipe's own keys
        config = OmegaConf.merge(defaults(), _with_included(path))
        assert isinstance(config, DictConfig)
        for override in overrides:
            key, equals, value = override.partition("=")
            before = OmegaConf.select(config, key, default=_ABSENT)
            if not equals or before is _ABSENT:
                raise UserError(key, value, f"no such key in {path}; write key=value with a key of that file")
            now = OmegaConf.from_dotlist([f"value={value}"])["value"]
            # a text stands in commands, where nothing is written null
            OmegaConf.update(config, key, "null" if now is None and isinstance(before, str) else now)
        content = OmegaConf.to_container(config, resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError("recipe", path, f"cannot be read: {' '.join(str(error).split())}") from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _with_included(path: Path, before: tuple[Path, ...] = ()) -> DictConfig:
    """The file over the one that it includes, unresolved; `before` are the files that include it."""
    config = OmegaConf.load(path)
    if not isinstance(config, DictConfig):
        raise UserError("recipe", path, "must be a mapping with the keys output and stages")
    name = config.pop("include", None)
    if name is None:
        return config
    other = path.parent / str(name)
    if not other.is_file() or other.resolve() in (path.resolve(), *before):
        raise UserError("include", name, f"in {path}: must be another recipe, beside it")
    merged = OmegaConf.merge(_with_included(other, (*before, path.resolve())), config)
    assert isinstance(merged, DictConfig)
    return merged


def _listed(content: Mapping[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list) or not value:
        raise UserError(key, value, "must be a list with at least one entry")
    return value


def _group(entry: Any, output: Path) -> tuple[Stage, ...]:
    if isinstance(entry, dict) and set(entry) == {"parallel"}:
        return tuple(_stage(member, output) for member in _listed(entry, "parallel"))
    return (_stage(entry, output),)


def _stage(entry: Any, output: Path) -> Stage:
    if not isinstance(entry, dict) or set(entry) != STAGE_KEYS:
        wanted = ", ".join(sorted(STAGE_KEYS))
        raise UserError("stages", entry, f"a stage has exactly the keys {wanted} (or parallel alone)")
    if not re.fullmatch(r"[\w.-]+", str(entry["name"])):
        raise UserError("stages.name", entry["name"], "is also a file name: use letters, digits, '.', '_' and '-'")
    command = entry["command"]
    argv = ["bash", "-euo", "pipefail", "-c", command] if isinstance(command, str) else [str(part) for part in command]
    outputs = tuple(Path(path) for path in entry["outputs"])
    for path in outputs:
        # What a stage left is removed when its command changes, so it must be the recipe's own.
        if output.resolve() not in path.resolve().parents:
            raise UserError("stages.outputs", path, f"must lie below the recipe's output folder {output}")
    return Stage(name=entry["name"], minutes=float(entry["minutes"]), command=tuple(argv), outputs=outputs)
