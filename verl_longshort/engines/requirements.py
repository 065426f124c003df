"""What models in a command's own process require."""

from collections.abc import Sequence

from verl_longshort.base.dry_run import planned_gpus
from verl_longshort.base.files import absolute_model
from verl_longshort.base.requirements import EngineUse, GenerationWork, Product, Requirements
from verl_longshort.engines.factory import MEMORY_SHARE, EngineSettings
from verl_longshort.engines.registry import spec_of

PROMPT_ROOM = 4096
"""Tokens that a plan gives a prompt room for; in a run it may have as many as the model takes."""


def local_engine(
    model: str, settings: EngineSettings, *, max_num_seqs: int, new_tokens: int, sharing: int = 1
) -> EngineUse:
    """A model in the command's own process: on GPUs where there are some, else on the CPU.

    `sharing`: how many such models divide the GPU's memory.
    """
    return EngineUse(
        model=absolute_model(model),
        name=settings.engine_spec.name,
        gpus=settings.tensor_parallel_size if planned_gpus() else 0,
        tensor_parallel=settings.tensor_parallel_size,
        memory_share=settings.gpu_memory_utilization or MEMORY_SHARE / sharing,
        max_length=PROMPT_ROOM + new_tokens,
        max_num_seqs=max_num_seqs,
    )


def generating(command: str, work: GenerationWork, products: Sequence[Product]) -> Requirements:
    """Of a command that generates: the GPUs and packages that its engines need."""
    gpus = max((engine.gpus for engine in work.engines), default=0)
    packages = {spec_of(engine.name).package for engine in work.engines}
    return Requirements(
        command=command,
        work=work,
        gpus_per_node=gpus,
        products=tuple(products),
        packages=tuple(sorted(filter(None, packages))),
    )
