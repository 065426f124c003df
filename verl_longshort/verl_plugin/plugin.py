"""Registers this package with verl; loaded through the `verl.plugins` entry point in every process.

At once, and light: the CPU platform. When verl imports the module that holds the registry: the rollout
"transformers", the rollout "vllm" made fit for two policies, the FSDP engines for a CPU, the trainers
"longshort" and "longshort_single" and their agent loops. A failure of the latter is raised by that import.
verl logs a failure of the former at debug level only, so it is kept here and `raise_load_error` tells it.
"""

import importlib
import os
from types import ModuleType

import wrapt
from longshort_reward.errors import UserError

ENTRY_POINT = "longshort"
POLICY_VARIABLE = "VERL_USE_EXTERNAL_PLUGINS"
ROLLOUT_NAME = "transformers"
VLLM_ROLLOUT_NAME = "vllm"
TRAINER_NAME = "longshort"
_PACKAGE = "verl_longshort.verl_plugin"
TRAINER_MODULES = (f"{_PACKAGE}.trainer.pair_trainer", f"{_PACKAGE}.trainer.single_trainer")
AGENT_LOOP_MODULES = (f"{_PACKAGE}.rollout.agent_loop", f"{_PACKAGE}.rollout.single_loop")
ENGINE_MODULE = f"{_PACKAGE}.platform.fsdp"
ADAPTER_CLASS = f"{_PACKAGE}.rollout.adapter.TransformersAdapter"
VLLM_ADAPTER_CLASS = f"{_PACKAGE}.rollout.vllm_adapter.VllmAdapter"

LOAD_ERROR: Exception | None = None
"""What went wrong while verl loaded this module, if anything did."""


def raise_load_error() -> None:
    """Raise what keeps verl's processes from having this plug-in; verl itself stays quiet about it.

    Raises:
        UserError: the environment tells verl not to load it.
        RuntimeError: it failed to load in this process.
    """
    policy = os.environ.get(POLICY_VARIABLE, "auto").strip().lower()
    if policy != "auto" and ENTRY_POINT not in {name.strip() for name in policy.split(",")}:
        raise UserError(POLICY_VARIABLE, policy, f"keeps verl from loading the plug-in; unset it or add {ENTRY_POINT}")
    if LOAD_ERROR is not None:
        raise RuntimeError(f"the plug-in of verl-longshort failed to load: {LOAD_ERROR!r}") from LOAD_ERROR


def _register_replica(replica: ModuleType) -> None:
    replica.RolloutReplicaRegistry.register(ROLLOUT_NAME, _load_replica)
    # takes the place of verl's own, which it is for a rollout without a role
    replica.RolloutReplicaRegistry.register(VLLM_ROLLOUT_NAME, _load_vllm_replica)


def _load_replica() -> type:
    from verl_longshort.verl_plugin.rollout.replica import TransformersReplica

    return TransformersReplica


def _load_vllm_replica() -> type:
    from verl_longshort.verl_plugin.rollout.vllm_replica import VllmReplica

    return VllmReplica


def _register_adapter(rollout: ModuleType) -> None:
    rollout._ROLLOUT_REGISTRY[(ROLLOUT_NAME, "async")] = ADAPTER_CLASS
    rollout._ROLLOUT_REGISTRY[(VLLM_ROLLOUT_NAME, "async")] = VLLM_ADAPTER_CLASS


def _register_engines(_: ModuleType) -> None:
    importlib.import_module(ENGINE_MODULE)


def _register_trainers(_: ModuleType) -> None:
    for module in TRAINER_MODULES:
        importlib.import_module(module)


def _register_agent_loops(_: ModuleType) -> None:
    for module in AGENT_LOOP_MODULES:
        importlib.import_module(module)


WHEN_IMPORTED = {
    "verl.workers.rollout.replica": _register_replica,
    "verl.workers.rollout.base": _register_adapter,
    "verl.workers.engine.fsdp.transformer_impl": _register_engines,
    "verl.trainer.ppo.v1": _register_trainers,
    "verl.experimental.agent_loop.agent_loop": _register_agent_loops,
}
"""Module of verl -> what to register once it is imported."""


def _register() -> None:
    importlib.import_module("verl_longshort.verl_plugin.platform.cpu")
    for module, register in WHEN_IMPORTED.items():
        wrapt.register_post_import_hook(register, module)


try:
    _register()
except Exception as error:
    LOAD_ERROR = error
