"""All engines by name. A new one is a file that describes it, and a line here."""

from verl_longshort.engines.spec import EngineSpec
from verl_longshort.engines.transformers import TRANSFORMERS
from verl_longshort.engines.vllm import VLLM

DEFAULT = TRANSFORMERS
"""Runs everywhere."""

ENGINES = {spec.name: spec for spec in (VLLM, DEFAULT)}
"""Those that run in a command's own process; `auto` takes the first that can run."""

PACKAGES = tuple(spec.package for spec in ENGINES.values() if spec.package)
"""Importable packages that some engine needs and not every installation has."""

_VERL_ONLY = {"sglang": EngineSpec(name="sglang", title="SGLang", package="sglang", fast=True)}


def spec_of(name: str) -> EngineSpec:
    """The engine `name`; one of verl's that is not known here has no abilities to count on."""
    return ENGINES.get(name) or _VERL_ONLY.get(name) or EngineSpec(name=name, title=name)
