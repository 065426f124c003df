"""Loads `audited_trainer` as soon as the pair's trainer is there, and `failing` with the agent loops' clients; named in
VERL_USE_EXTERNAL_MODULES.

verl imports such modules before it has chosen a platform, so this one must import nothing of verl.
"""

import importlib

import wrapt

wrapt.register_post_import_hook(
    lambda _: importlib.import_module("audited_trainer"), "verl_longshort.verl_plugin.trainer.pair_trainer"
)
wrapt.register_post_import_hook(
    lambda _: importlib.import_module("failing").fail_some(), "verl_longshort.verl_plugin.rollout.clients"
)
