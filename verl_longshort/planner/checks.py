"""What is wrong with a plan, a line each: mistakes in stages, GPUs, memory, models, packages, disk."""

from collections.abc import Iterator, Sequence

from verl_longshort.base.requirements import EngineUse, FineTuningWork, GenerationWork, ReinforcementWork, TrainedModel
from verl_longshort.engines.registry import ENGINES
from verl_longshort.planner.estimate import PlannedCommand, PlannedStage, Result
from verl_longshort.planner.host import host_problem
from verl_longshort.planner.memory import RESERVE, MemoryTable
from verl_longshort.recipe.assumptions import GB, GIB

_SHOWN_PARTS = 3
_INSTALL = {
    **{spec.package: spec.install for spec in ENGINES.values() if spec.package},
    "flash_attn": "pip install flash-attn",
}


def problems(result: Result) -> list[str]:
    """All of them; none when the recipe can run."""
    lines = [f"{stage.checked.stage.name}: {line}" for stage in result.stages for line in _stage(stage, result)]
    for group in result.groups:
        asked = sum(stage.gpus for stage in group)
        if len(group) > 1 and asked > result.gpu_count >= max(stage.gpus for stage in group):
            names = ", ".join(stage.checked.stage.name for stage in group)
            lines.append(
                f"{names}: run at the same time and ask for {asked} GPUs on a node that has "
                f"{result.gpu_count}: let them run one after the other"
            )
    lines += [f"model {found.name}: {found.problem}" for found in result.models if found.problem]
    lines += _machine(result)
    disk = result.disk
    if disk.free is not None and disk.total > disk.free:
        lines.append(
            f"the recipe leaves {disk.total / GB:.0f} GB on a disk with {disk.free / GB:.0f} GB free: keep "
            "fewer checkpoints (longshort.keep_checkpoints), or write elsewhere (output)"
        )
    return list(dict.fromkeys(lines))


def _stage(stage: PlannedStage, result: Result) -> Iterator[str]:
    if stage.checked.problem is not None:
        yield stage.checked.problem
    for command in stage.commands:
        gpus = command.needs.gpus_per_node
        if gpus > result.gpu_count:
            yield f"asks for {gpus} GPUs on a node that has {result.gpu_count}: ask for fewer, or set gpu.count"
        yield from _splits(command, result)
        if result.host_gb is not None and (problem := host_problem(command.host, result.host_gb * GIB)):
            yield f"{problem}, or set host.memory_gb"
        for table in command.tables:
            yield from _memory(table, result)
        host = sum(table.host for table in command.tables) * gpus / GIB
        if result.host_gb is not None and host > result.host_gb:
            yield (
                f"keeps {host:.0f} GiB in the host memory of a node that has {result.host_gb:.0f} GiB: offload "
                "less, or set host.memory_gb"
            )


def _splits(command: PlannedCommand, result: Result) -> Iterator[str]:
    """Attention heads that cannot be divided among as many GPUs as the settings say."""
    work = command.needs.work
    engines: Sequence[EngineUse] = work.engines if isinstance(work, GenerationWork) else ()
    trained: Sequence[TrainedModel] = [work.trained] if isinstance(work, FineTuningWork) else ()
    if isinstance(work, ReinforcementWork):
        engines = [policy.engine for policy in work.policies.values()]
        trained = [policy.trained for policy in work.policies.values() if policy.trained is not None]
    splits = [
        *(("tensor_model_parallel_size", engine.tensor_parallel, engine.model) for engine in engines),
        *(("ulysses_sequence_parallel_size", one.sequence_parallel, one.model) for one in trained),
    ]
    shapes = {found.name: found.shape for found in result.models}
    for setting, size, model in splits:
        shape = shapes.get(model)
        if shape is not None and shape.heads % size:
            yield f"{setting} = {size}: does not divide the {shape.heads} attention heads of {model}"


def _memory(table: MemoryTable, result: Result) -> Iterator[str]:
    for phase in table.phases:
        total = table.total(phase) / GIB
        if total > result.gpu_gb:
            sizes = {part: by.get(phase, 0.0) / GIB for part, by in table.parts.items() if part != RESERVE}
            largest = sorted(sizes.items(), key=lambda item: -item[1])[:_SHOWN_PARTS]
            parts = ", ".join(f"{part} {size:.1f}" for part, size in largest)
            yield (
                f"{phase} takes {total:.1f} GiB on {table.title}, which has {result.gpu_gb:.0f}; most of it: "
                f"{parts}; see docs/recipes.md for what makes each smaller"
            )
    for part, room in table.caches.items():
        if room.tokens < room.engine.max_length:
            yield (
                f"{part} holds {room.tokens:.0f} tokens, and one sequence may have {room.engine.max_length}: "
                "raise gpu_memory_utilization or tensor_model_parallel_size"
            )


def _machine(result: Result) -> Iterator[str]:
    present = len(result.machine.gpu_memory_gb)
    asked = max((stage.gpus for stage in result.stages), default=0)
    if present and asked > present:
        yield f"the recipe uses {asked} GPUs and this machine has {present}: set gpu.count={present}"
    if present:
        for package in sorted(result.packages & result.machine.missing_packages):
            yield f"{package} is not installed: {_INSTALL.get(package, f'pip install {package}')}"
