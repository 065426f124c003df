"""What models in a command's own process require."""

from collections.abc import Sequence
from pathlib import Path

from verl_longshort.base.dry_run import absolute, dry_run, is_planned
from verl_longshort.base.requirements import EngineUse, GenerationWork, Product, Requirements
from verl_longshort.engines.factory import MEMORY_SHARE, EngineSettings

PROMPT_ROOM = 4096
"""Tokens that a plan gives a prompt room for; in a run it may have as many as the model takes."""


def local_engine(
    model: str, settings: EngineSettings, *, max_num_seqs: int, new_tokens: int, sharing: int = 1
) -> EngineUse:
    """A model in the command's own process: on GPUs where there are some, else on the CPU.

    `sharing`: how many such models divide the GPU's memory.
    """
    dry = dry_run()
    gpus = settings.tensor_parallel_size if dry is not None and dry.gpus else 0
    share = settings.gpu_memory_utilization
    return EngineUse(
        model=absolute_model(model),
        name=str(settings.engine),
        gpus=gpus,
        tensor_parallel=settings.tensor_parallel_size,
        memory_share=MEMORY_SHARE / sharing if share is None else share,
        max_length=PROMPT_ROOM + new_tokens,
        max_num_seqs=max_num_seqs,
    )


def generating(command: str, work: GenerationWork, products: Sequence[Product]) -> Requirements:
    """Of a command that generates: the GPUs and packages that its engines need."""
    gpus = max((engine.gpus for engine in work.engines), default=0)
    vllm = any(engine.name == "vllm" for engine in work.engines)
    return Requirements(
        command=command,
        work=work,
        gpus_per_node=gpus,
        products=tuple(products),
        packages=("vllm",) if vllm else (),
    )


def absolute_model(model: str) -> str:
    """A folder as an absolute path, a name on the hub as it is."""
    folder = Path(model).expanduser()
    return absolute(folder) if folder.is_dir() or is_planned(folder) or model.count("/") != 1 else model
