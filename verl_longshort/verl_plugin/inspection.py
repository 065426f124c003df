"""Looks at one process: did verl load the plug-in, and is everything registered that a run needs?

`inspect_process` runs in the driver and, by `python -m verl_longshort.verl_plugin.inspection`, in a Ray worker; verl
loads plug-ins in every process by itself.
"""

import importlib
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points

PLUGIN_GROUP = "verl.plugins"
PLUGIN_MODULE = "verl_longshort.verl_plugin.plugin"
PLUGIN_TOPIC = "plug-in"
DEVICE_TOPIC = "device"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at. `problem` says what is wrong and what to do, and is empty when nothing is."""

    topic: str
    value: str
    problem: str = ""


def inspect_process() -> list[Finding]:
    """What the plug-in has registered in this process; one finding per topic, fewer when it is not loaded."""
    # verl warns about each training backend that is not installed; none of them is needed here.
    warnings.filterwarnings("ignore", category=UserWarning, module="verl.workers.engine")
    importlib.import_module("verl")
    plugin = sys.modules.get(PLUGIN_MODULE)
    if plugin is None:
        return [Finding(topic=PLUGIN_TOPIC, value="not loaded", problem=_why_not_loaded())]
    if plugin.LOAD_ERROR is not None:
        return [Finding(topic=PLUGIN_TOPIC, value="failed to load", problem=repr(plugin.LOAD_ERROR))]
    loaded = Finding(topic=PLUGIN_TOPIC, value="loaded")
    return [loaded, *(_probe(topic, look) for topic, look in _PROBES.items())]


def _why_not_loaded() -> str:
    if PLUGIN_MODULE not in {point.value for point in entry_points(group=PLUGIN_GROUP)}:
        return f"no entry point of {PLUGIN_GROUP} names {PLUGIN_MODULE}; install verl-longshort again"
    try:
        importlib.import_module(PLUGIN_MODULE).raise_load_error()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "verl was imported before verl-longshort was installed; start Ray and this process again"


def _probe(topic: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(topic=topic, value=look())
    except Exception as error:
        return Finding(topic=topic, value="missing", problem=f"{type(error).__name__}: {error}")


def _device() -> str:
    from verl.plugin.platform import get_platform

    return str(get_platform().device_name)


def _cpu_platform() -> str:
    from verl.plugin.platform.platform_manager import PlatformRegistry

    from verl_longshort.verl_plugin.platform.cpu import PLATFORM_NAME

    platform = PlatformRegistry.get(PLATFORM_NAME)
    if platform is None:
        raise LookupError(f"verl has the platforms {', '.join(PlatformRegistry.registered_names())}")
    return platform.__name__


def _rollout() -> str:
    from verl.workers.rollout.base import get_rollout_class
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    from verl_longshort.engines.transformers import TRANSFORMERS

    # the other rollouts' classes need their packages, which need not be installed
    replica, adapter = RolloutReplicaRegistry.get(TRANSFORMERS.name), get_rollout_class(TRANSFORMERS.name)
    return f"{replica.__name__}, {adapter.__name__}"


def _engines() -> str:
    from verl.workers.engine import EngineRegistry

    from verl_longshort.verl_plugin.platform.fsdp import LANGUAGE_MODEL, STRATEGY, VALUE_MODEL

    engines = (EngineRegistry.get_engine_cls(kind, STRATEGY) for kind in (LANGUAGE_MODEL, VALUE_MODEL))
    return ", ".join(engine.__name__ for engine in engines)


def _trainer() -> str:
    from verl.trainer.ppo.v1 import get_trainer_cls

    from verl_longshort.verl_plugin.plugin import TRAINER_NAME

    return str(get_trainer_cls(TRAINER_NAME).__name__)


_PROBES: dict[str, Callable[[], str]] = {
    DEVICE_TOPIC: _device,
    "CPU platform": _cpu_platform,
    "training engines": _engines,
    "rollout 'transformers'": _rollout,
    "trainer 'longshort'": _trainer,
}


def main() -> None:
    """Start or join Ray, inspect a worker, and print the findings as one line of JSON."""
    import ray

    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    findings = ray.get(ray.remote(inspect_process).remote())
    print(json.dumps([asdict(finding) for finding in findings]))


if __name__ == "__main__":
    # The class that a worker unpickles is that of the imported module, not of __main__.
    from verl_longshort.verl_plugin import inspection

    inspection.main()
