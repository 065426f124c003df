"""A recipe's YAML as typed, checked data.

    include: paper.yaml                # optional: a recipe in the same folder; what is said here wins
    output: runs/tiny                  # logs, markers and every output lie below it
    environment: {OMP_NUM_THREADS: 1}  # optional, for all stages
    schedule: [long, short]            # optional: the rounds of RL, and the steps of each
    steps_per_round: 8
    limits: [a=1, b=2]                 # any other key: a value for ${...} below
    stages:
      - name: world
        minutes: 0.5                   # expected, for the estimate of the time left
        command: [longshort, world, --out, "${output}/world"]
        outputs: ["${output}/world/train.parquet"]       # must exist when the stage has ended
      - parallel:                      # stages that do not need each other, at the same time as far as gpu.count allows
          - {name: sft-long, gpus: 1, ...}               # each is shown so many GPUs of its own
          - {name: sft-short, gpus: 1, ...}
      - ${more}                        # a list of stages takes the place of its name
      - for_each: round                # a stage for each round of the schedule, `at_once` of them at a time
        at_once: 2
        name: evaluate-${round.label}
        command: [longshort, eval, "longshort.name=${round.label}", "model=${pair}/global_step_${round.step}"]
        ...

A command is a list of arguments; a list within it (`${limits}`) is spliced in, and so is a `{for_each: round,
argument: ...}`. Several commands of one stage, run one after the other, are `commands`, a list of such lists. A plain
string is a script for bash. Null is written `null` in arguments. `round` has `number` (from 1), `label` (`L2S1`: the
pair after that round) and `step`; `last_round` is the last one, `rounds` the schedule in one word, for an argument.
`${at_most:4,${gpu.count}}` is the smaller of two numbers, `${either:${tied},a,b}` is a where the key `tied` is true,
else b; either may be a key of more (`${more}`). `device: cpu` keeps all stages off the machine's GPUs.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from verl_longshort.base.device import CPU, PLATFORM_VARIABLE
from verl_longshort.core.schedule import Schedule
from verl_longshort.recipe.assumptions import defaults

STAGE_KEYS = ("command", "minutes", "name", "outputs")
STALL_MINUTES = 30.0
GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
_ABSENT = object()
_EACH_ROUND = "round"

OmegaConf.register_new_resolver("at_most", min, replace=True)
OmegaConf.register_new_resolver("either", lambda chosen, one, other: one if chosen else other, replace=True)


@dataclass(frozen=True, kw_only=True)
class RecipeStage:
    """One step of a recipe: a command and what it leaves behind."""

    name: str
    minutes: float
    """Expected time on the machine the recipe was written for."""
    command: tuple[str, ...]
    """Arguments of the process."""
    outputs: tuple[Path, ...]
    """Files and folders that a finished stage has written."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of this stage alone."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe. The stages of one group run at the same time, the groups one after the other."""

    output: Path
    groups: tuple[tuple[RecipeStage, ...], ...]
    environment: Mapping[str, str]
    stall_minutes: float
    """A stage that neither writes to its log nor reports progress for so long is ended."""
    show: Path | None
    """A text file to print when all stages are done."""
    settings: Mapping[str, Any]
    """The recipe's keys but `stages`, with the overrides applied."""

    @property
    def stages(self) -> tuple[RecipeStage, ...]:
        """All stages in order."""
        return tuple(stage for group in self.groups for stage in group)

    def fingerprints(self) -> dict[str, str]:
        """For each stage a hash of its command and of all that comes before it: a change reaches all after it."""
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
    """Which stages of a recipe are run. The others are taken as they are, done or not."""

    only: tuple[str, ...] = ()
    """These; empty: all."""
    first: str | None = None
    """This one and those after it, and what runs at the same time."""

    def groups(self, recipe: Recipe) -> tuple[tuple[RecipeStage, ...], ...]:
        """The recipe's groups without other stages. Raises UserError for a stage that it does not have."""
        names = [stage.name for stage in recipe.stages]
        for key, chosen in (("--only", self.only), ("--from", (self.first,) if self.first else ())):
            for name in chosen:
                if name not in names:
                    raise UserError(key, name, f"no such stage; the stages are {', '.join(names)}")
        groups = recipe.groups
        if self.first is not None:
            begin = next(k for k, group in enumerate(groups) if self.first in [s.name for s in group])
            groups = groups[begin:]
        kept = (tuple(s for s in group if not self.only or s.name in self.only) for group in groups)
        return tuple(group for group in kept if group)


def recipe_folder() -> Path:
    """Where the package's recipes are: in a wheel below the package, in a checkout beside it."""
    installed = Path(__file__).parents[1] / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """The recipes of the package, by name; without the files that only others include."""
    return {path.stem: path for path in sorted(recipe_folder().glob("*.yaml")) if not path.stem.startswith("paper")}


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe, which is given as a path or by the name of one of the package's. Raises UserError."""
    shipped = shipped_recipes()
    if Path(name).is_file():
        return Path(name)
    if str(name) in shipped:
        return shipped[str(name)]
    remedy = f"no such file; give the path of one, or a recipe of the package: {', '.join(shipped)}"
    raise UserError("recipe", name, remedy)


def load_recipe(path: Path, overrides: Sequence[str]) -> Recipe:
    """The recipe in `path` with `overrides` (`key=value`) applied. Raises UserError when it cannot be used."""
    settings, entries = _resolved(path, overrides)
    if "output" not in settings:
        raise UserError("output", path, "the recipe needs a folder for its results")
    output = Path(settings["output"])
    gpus = settings["gpu"]["count"]
    most = gpus if isinstance(gpus, int) else None
    device = {PLATFORM_VARIABLE: CPU} if settings.get("device") == CPU else {}
    groups = [group for entry in entries for group in _groups(entry, output, most)]
    names = [stage.name for group in groups for stage in group]
    for name in names:
        if names.count(name) > 1:
            raise UserError("stages.name", name, "is used twice; every stage needs its own name")
    return Recipe(
        output=output,
        groups=tuple(groups),
        environment={**device, **{key: str(value) for key, value in settings.get("environment", {}).items()}},
        stall_minutes=float(settings.get("stall_minutes", STALL_MINUTES)),
        show=Path(settings["show"]) if "show" in settings else None,
        settings=settings,
    )


def _resolved(path: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], list[Any]]:
    """The settings, and the entries of `stages` with a stage for each round, all without ${...}."""
    if not path.is_file():
        raise UserError("recipe", path, "no such file; give the path of a recipe's YAML")
    try:
        # gpu, assume and their like, for the plan of a dry run, lie below the recipe's own keys
        config = OmegaConf.merge(defaults(), _with_included(path))
        assert isinstance(config, DictConfig)
        for override in overrides:
            key, equals, value = override.partition("=")
            if not equals or OmegaConf.select(config, key, default=_ABSENT) is _ABSENT:
                raise UserError(key, value, f"no such key in {path}; write key=value with a key of that file")
            OmegaConf.update(config, key, OmegaConf.from_dotlist([f"value={value}"])["value"])
        rounds = _rounds(config)
        if rounds:
            config["last_round"] = rounds[-1]
            config["rounds"] = f"[{','.join(map(str, config.schedule))}]"
        plain = OmegaConf.to_container(config, resolve=False)
        assert isinstance(plain, dict)
        # In a text null stands for None, as Hydra reads it.
        plain = _changed(plain, lambda value: "null" if value is None else value)
        written = OmegaConf.create(_each_round(plain, rounds))
        resolved = OmegaConf.to_container(written, resolve=True)
        config.pop("stages", None)
        settings = OmegaConf.to_container(config, resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError("recipe", path, f"cannot be read: {' '.join(str(error).split())}") from error
    assert isinstance(resolved, dict)
    assert isinstance(settings, dict)
    left = {str(key): value for key, value in settings.items() if key not in ("last_round", "rounds")}
    return left, _listed({str(key): value for key, value in resolved.items()}, "stages")


def _with_included(path: Path, before: tuple[Path, ...] = ()) -> DictConfig:
    """The file over the one that it includes, unresolved; `before` are the files that include it."""
    config = OmegaConf.load(path)
    if not isinstance(config, DictConfig):
        raise UserError("recipe", path, "must be a mapping with the keys output and stages")
    name = config.pop("include", None)
    if name is None:
        return config
    # A recipe of one's own may include one of the package.
    beside, shipped = path.parent / str(name), recipe_folder() / str(name)
    other = beside if beside.is_file() else shipped
    if not other.is_file() or other.resolve() in (path.resolve(), *before):
        raise UserError("include", name, f"in {path}: must be another recipe, beside it or of the package")
    merged = OmegaConf.merge(_with_included(other, (*before, path.resolve())), config)
    assert isinstance(merged, DictConfig)
    return merged


def _rounds(config: DictConfig) -> list[dict[str, Any]]:
    names = OmegaConf.select(config, "schedule", default=None)
    if names is None:
        return []
    steps = OmegaConf.select(config, "steps_per_round")
    schedule = Schedule.parse(list(names), steps)
    return [
        {"number": number, "step": number * steps, "label": schedule.label(number * steps)}
        for number in range(1, len(schedule.rounds) + 1)
    ]


def _changed(node: Any, change: Callable[[Any], Any]) -> Any:
    """The node with every value that is no mapping and no list changed."""
    if isinstance(node, dict):
        return {key: _changed(value, change) for key, value in node.items()}
    if isinstance(node, list):
        return [_changed(value, change) for value in node]
    return change(node)


def _each_round(node: Any, rounds: Sequence[Mapping[str, Any]]) -> Any:
    """The node with a copy of what is said `for_each: round` in place of it, for each round."""
    if isinstance(node, dict):
        return {key: _each_round(value, rounds) for key, value in node.items()}
    if not isinstance(node, list):
        return node
    expanded: list[Any] = []
    for item in node:
        if not isinstance(item, dict) or "for_each" not in item:
            expanded.append(_each_round(item, rounds))
            continue
        rest = {key: value for key, value in item.items() if key not in ("for_each", "at_once")}
        if item["for_each"] != _EACH_ROUND or not rounds:
            remedy = "must be round, in a recipe with the keys schedule and steps_per_round"
            raise UserError("for_each", item["for_each"], remedy)
        copies = [_changed(rest, partial(_with_round, one)) for one in rounds]
        if "argument" in rest:
            expanded += [copy["argument"] for copy in copies]
        else:
            expanded.append({"at_once": item.get("at_once", 1), "stages": copies})
    return expanded


def _with_round(one: Mapping[str, Any], value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return re.sub(r"\$\{round\.(\w+)\}", lambda found: str(one[found[1]]), value)


def _listed(content: Mapping[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list) or not value:
        raise UserError(key, value, "must be a list with at least one entry")
    return value


def _groups(entry: Any, output: Path, gpus: int | None) -> Iterator[tuple[RecipeStage, ...]]:
    """The groups of stages that an entry of `stages` stands for; `gpus` of a node, None when that is not known."""
    if isinstance(entry, list):
        for each in entry:
            yield from _groups(each, output, gpus)
    elif isinstance(entry, dict) and set(entry) == {"at_once", "stages"}:
        at_once = int(entry["at_once"])
        if at_once < 1:
            raise UserError("at_once", entry["at_once"], "must be a whole number from 1 on")
        for begin in range(0, len(entry["stages"]), at_once):
            yield from _at_once(entry["stages"][begin : begin + at_once], output, gpus)
    elif isinstance(entry, dict) and set(entry) == {"parallel"}:
        yield from _at_once(_listed(entry, "parallel"), output, gpus)
    else:
        yield from _at_once([entry], output, gpus)


def _at_once(entries: Sequence[Any], output: Path, gpus: int | None) -> Iterator[tuple[RecipeStage, ...]]:
    """The stages as one group; as several, in order, where they ask for more GPUs than a node has."""
    stages: list[RecipeStage] = []
    gpu = 0
    for entry in entries:
        count = int(entry.get("gpus", 0)) if isinstance(entry, dict) else 0
        if stages and gpus is not None and gpu + count > gpus:
            yield tuple(stages)
            stages, gpu = [], 0
        own = {GPUS_VARIABLE: ",".join(map(str, range(gpu, gpu + count)))} if count else {}
        gpu += count
        stages.append(_stage(entry, output, own))
    yield tuple(stages)


def _stage(entry: Any, output: Path, environment: Mapping[str, str]) -> RecipeStage:
    if isinstance(entry, dict) and "commands" in entry and "command" not in entry:
        entry = {**entry, "command": _sequence(entry["commands"])}
        del entry["commands"]
    if not isinstance(entry, dict) or set(entry) - {"gpus"} != set(STAGE_KEYS):
        raise UserError("stages", entry, f"a stage has exactly the keys {', '.join(STAGE_KEYS)} (or parallel alone)")
    if not re.fullmatch(r"[\w.-]+", str(entry["name"])):
        raise UserError("stages.name", entry["name"], "is also a file name: use letters, digits, '.', '_' and '-'")
    command = entry["command"]
    argv = ["bash", "-euo", "pipefail", "-c", command] if isinstance(command, str) else _flat(command)
    outputs = tuple(Path(path) for path in entry["outputs"])
    for path in outputs:
        # What a stage left is removed when its command changes, so it must be the recipe's own.
        if output.resolve() not in path.resolve().parents:
            raise UserError("stages.outputs", path, f"must lie below the recipe's output folder {output}")
    return RecipeStage(
        name=entry["name"],
        minutes=float(entry["minutes"]),
        command=tuple(argv),
        outputs=outputs,
        environment=environment,
    )


def _sequence(commands: Any) -> list[str]:
    if not isinstance(commands, list) or not all(isinstance(command, list) for command in commands):
        raise UserError("commands", commands, "must be a list of commands, each a list of arguments")
    return ["python", "-m", "verl_longshort.recipe.sequence", json.dumps([_flat(command) for command in commands])]


def _flat(arguments: Any) -> list[str]:
    """The arguments with those of lists within the list in their place."""
    if isinstance(arguments, list):
        return [part for argument in arguments for part in _flat(argument)]
    if isinstance(arguments, bool):
        return [str(arguments).lower()]
    return [str(arguments)]


def as_text(command: Sequence[str]) -> str:
    """A stage's command as a person would type it: a script as it is, arguments quoted, one command a line."""
    if command[:1] == ("bash",):
        return command[-1]
    if "verl_longshort.recipe.sequence" in command:
        return "\n".join(shlex.join(each) for each in json.loads(command[-1]))
    return shlex.join(command)
