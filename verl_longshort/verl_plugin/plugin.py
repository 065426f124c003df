"""Registers this package with verl; loaded through the `verl.plugins` entry point in every process.

The CPU platform is registered at once. The rest waits until verl imports the module that holds the registry: the
rollouts of `rollout/registry.py`, the FSDP engines for a CPU, the trainers "longshort" and "longshort_single" and
their agent loops. If the rest fails to load, that import raises. verl logs a failure of this module itself at debug
level only, so the error is kept here, and `raise_load_error` raises it.

Beside a verl that this package is not made for, nothing is registered: verl's own runs are as without the plug-in, and
a warning says so.
"""

import importlib
import logging
import os
import warnings
from collections.abc import Callable
from types import ModuleType

import wrapt
from longshort_reward.errors import UserError

from verl_longshort.base.console import Once, say_warnings
from verl_longshort.verl_plugin.rollout.registry import ROLLOUTS
from verl_longshort.verl_plugin.versions import DISTRIBUTION, check_verl, needed_verl, other_verl

ENTRY_POINT = "longshort"
POLICY_VARIABLE = "VERL_USE_EXTERNAL_PLUGINS"
TRAINER_NAME = "longshort"
_PACKAGE = "verl_longshort.verl_plugin"
_WARNED = "LONGSHORT_OTHER_VERL"
"""Set where a process before has warned of another verl."""

LOAD_ERROR: Exception | None = None
"""What went wrong while verl loaded this module, if anything did."""


def raise_load_error() -> None:
    """Raise what keeps verl's processes from having this plug-in; verl itself stays quiet about it.

    Raises:
        UserError: the environment tells verl not to load it, or it is not made for this verl.
        RuntimeError: it failed to load in this process.
    """
    check_verl()
    policy = os.environ.get(POLICY_VARIABLE, "auto").strip().lower()
    if policy != "auto" and ENTRY_POINT not in {name.strip() for name in policy.split(",")}:
        raise UserError(POLICY_VARIABLE, policy, f"keeps verl from loading the plug-in; unset it or add {ENTRY_POINT}")
    if LOAD_ERROR is not None:
        raise RuntimeError(f"the plug-in of verl-longshort failed to load: {LOAD_ERROR!r}") from LOAD_ERROR


def _register_replicas(replica: ModuleType) -> None:
    for name, rollout in ROLLOUTS.items():
        replica.RolloutReplicaRegistry.register(name, rollout.load_replica)


def _register_adapters(base: ModuleType) -> None:
    for name, rollout in ROLLOUTS.items():
        base._ROLLOUT_REGISTRY[(name, "async")] = rollout.adapter


def _import(*modules: str) -> Callable[[ModuleType], None]:
    def register(_: ModuleType) -> None:
        for module in modules:
            importlib.import_module(f"{_PACKAGE}.{module}")

    return register


WHEN_IMPORTED = {
    "verl.workers.rollout.replica": _register_replicas,
    "verl.workers.rollout.base": _register_adapters,
    "verl.workers.engine.fsdp.transformer_impl": _import("platform.fsdp"),
    "verl.trainer.ppo.v1": _import("trainer.pair_trainer", "trainer.single_trainer"),
    "verl.experimental.agent_loop.agent_loop": _import("rollout.agent_loop"),
}
"""Module of verl -> what to register once it is imported."""


REPEATING = ("verl.utils.tokenizer.continuous_token_wiring", "transfer_queue.utils.common")
"""Loggers that say the same thing for every trajectory or every request."""


def _register_all() -> None:
    say_warnings()
    for name in REPEATING:
        logging.getLogger(name).addFilter(Once())
    importlib.import_module(f"{_PACKAGE}.platform.cpu")
    for module, register in WHEN_IMPORTED.items():
        wrapt.register_post_import_hook(register, module)


def _warn_of_other(verl: str) -> None:
    """Once for a run: its processes inherit the environment."""
    if os.environ.get(_WARNED) != verl:
        os.environ[_WARNED] = verl
        warnings.warn(
            f"{DISTRIBUTION} is made for verl{needed_verl()} and stays off: verl {verl} is installed", stacklevel=2
        )


try:
    if (_other := other_verl()) is None:
        _register_all()
    else:
        _warn_of_other(_other)
except Exception as error:
    LOAD_ERROR = error
