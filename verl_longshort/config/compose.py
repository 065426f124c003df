"""Composes this package's configs on top of verl's, without importing verl.

`compose_config(name, overrides)` is Hydra's compose with one difference: a mistake is a `UserError` that
names the key. Fast (half a second), so that a command can check what it was given before the heavy imports.
"""

import difflib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from longshort_reward.errors import UserError
from omegaconf import DictConfig, Node, OmegaConf

CONFIG_DIR = Path(__file__).parent
_POLICY = re.compile(r"longshort\.policies\.(?:long|short)\.")


def compose_config(name: str, overrides: Sequence[str], unused: tuple[str, ...] = ()) -> DictConfig:
    """The config `name` of this folder with `overrides` (Hydra's `key=value`) applied, nothing left to fill
    in but what begins with one of `unused`.

    Raises UserError for an override that cannot be read, a key that does not exist and a required key that
    was not given.
    """
    # here, because every command imports this module, and Hydra takes a while
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    search = f"hydra.searchpath=[file://{verl_config_dir()}]"
    with initialize_config_dir(str(CONFIG_DIR), version_base=None):
        try:
            known = compose(name, overrides=[search, *_groups(overrides)])
            for override in overrides:
                _check_override(override, known)
            config = compose(name, overrides=[search, *(_added(_quoted(o), known) for o in overrides)])
        except HydraException as error:
            reason = " ".join(str(error).split())
            remedy = f"{reason}; give them as key=value, in a list with quotes around texts that have signs such as ("
            raise UserError("overrides", " ".join(overrides), remedy) from error
    missing = [k for k, node in _nodes(config) if node._is_missing() and not k.startswith(unused)]
    if missing:
        raise UserError(missing[0], "???", f"is required: add {missing[0]}=<value>")
    return config


def default_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """The config `name` with nothing of `overrides` but the groups that they choose, such as `device=cpu`."""
    from hydra import compose, initialize_config_dir

    search = f"hydra.searchpath=[file://{verl_config_dir()}]"
    with initialize_config_dir(str(CONFIG_DIR), version_base=None):
        return compose(name, overrides=[search, *_groups(overrides)])


def _groups(overrides: Sequence[str]) -> list[str]:
    return [one for one in overrides if "=" in one and _is_group(one.partition("=")[0].lstrip("+"))]


def verl_config_dir() -> Path:
    """Where the installed verl keeps its Hydra configs. Raises UserError when verl is not installed."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("verl", "not installed", "install it with `pip install verl-longshort[cpu]` or `[gpu]`")
    return Path(spec.submodule_search_locations[0]) / "trainer" / "config"


def _check_override(override: str, known: DictConfig) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise UserError(override, "", "is not an override: write key=value")
    if key.startswith(("+", "~")) or "@" in key or _is_group(key):
        return
    # One policy's own key: it is known where it is one of verl's.
    policy = _POLICY.match(key) if OmegaConf.select(known, "longshort.policies") else None
    prefix = policy.group() if policy else ""
    key = key.removeprefix(prefix)
    # The parent, not the key itself: an unset `???` counts as absent in OmegaConf.select.
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(known, parent) if parent else known
    known_leaf = isinstance(node, DictConfig) and leaf in node.keys()  # noqa: SIM118 (`in` skips missing values)
    if known_leaf or _is_open(parent, known):
        return
    close = difflib.get_close_matches(key, [name for name, _ in _nodes(known)], n=1)
    hint = f"did you mean {prefix}{close[0]}?" if close else f"write +{prefix}{key}={value} if it is meant to be new"
    raise UserError(f"{prefix}{key}", value, f"no such key; {hint}")


def _is_group(key: str) -> bool:
    """Whether a file of a folder of configurations is chosen by this key."""
    return any((folder / key.partition("@")[0]).is_dir() for folder in (CONFIG_DIR, verl_config_dir()))


def _is_open(key: str, known: DictConfig) -> bool:
    """Whether any name may stand in this mapping: one of ours that is `{}` in the file, such as `rule_options`.

    The settings that are made of it know which names there are.
    """
    node = OmegaConf.select(known, key) if key.startswith("longshort.") else None
    return isinstance(node, DictConfig) and not node


def _quoted(override: str) -> str:
    """The override with its value in quotes where Hydra cannot read it otherwise: a path with `=`, `(`, `~`, `é` …

    A value that begins like a list, a mapping or a quoted text is left as it is, so that Hydra says what is wrong.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = override.partition("=")
    if not equals or value[:1] in ("[", "{", "'", '"'):
        return override
    try:
        # a comma would make it a sweep over several runs, which no command has
        if not OverridesParser.create().parse_override(override).is_sweep_override():
            return override
    except HydraException:
        pass
    # Hydra reads backslashes as escapes only before a quote
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", r"\'"), value)
    return f"{key}='{escaped}'"


def _added(override: str, known: DictConfig) -> str:
    """The override with the sign that Hydra wants before a key that the file does not have."""
    if _POLICY.match(override):
        return f"++{override}"
    return f"+{override}" if _is_open(override.partition("=")[0].rpartition(".")[0], known) else override


def _nodes(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, Node]]:
    """All keys with their nodes, unresolved: OmegaConf.missing_keys fails where a key refers to a missing one."""
    for name in map(str, node):
        child = node._get_node(name)
        assert isinstance(child, Node)
        yield f"{prefix}{name}", child
        if isinstance(child, DictConfig) and not (child._is_missing() or child._is_none()):
            yield from _nodes(child, f"{prefix}{name}.")
