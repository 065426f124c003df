"""What speaks against a plan, a line each: mistakes in stages, GPUs, memory, models, packages, disk."""

from collections.abc import Iterator

from verl_longshort.base.requirements import (
    EngineUse,
    FineTuningWork,
    GenerationWork,
    ReinforcementWork,
    Requirements,
    TrainedModel,
)
from verl_longshort.engines.registry import ENGINES
from verl_longshort.planner.estimate import PlannedCommand, PlannedStage, Result
from verl_longshort.planner.tables import RESERVE, MemoryTable
from verl_longshort.recipe.assumptions import GB, GIB

_SHOWN_PARTS = 3
_INSTALL = {
    **{spec.package: spec.install for spec in ENGINES.values() if spec.package},
    "flash_attn": "pip install flash-attn",
}


def problems(result: Result) -> list[str]:
    """All of them; none when the recipe can run."""
    lines = [line for stage in result.stages for line in _stage(stage, result)]
    lines += _together(result)
    lines += [f"model {found.name}: {found.problem}" for found in result.models if found.problem]
    lines += _machine(result)
    lines += _disk(result)
    return list(dict.fromkeys(lines))


def _stage(stage: PlannedStage, result: Result) -> Iterator[str]:
    name = stage.checked.stage.name
    if stage.checked.problem is not None:
        yield f"{name}: {stage.checked.problem}"
    for command in stage.commands:
        yield from (f"{name}: {line}" for line in _command(command, result))


def _together(result: Result) -> Iterator[str]:
    for group in result.groups:
        asked = sum(stage.gpus for stage in group)
        if len(group) > 1 and asked > result.gpu_count >= max(stage.gpus for stage in group):
            names = ", ".join(stage.checked.stage.name for stage in group)
            yield (
                f"{names}: run at the same time and ask for {asked} GPUs on a node that has "
                f"{result.gpu_count}: let them run one after the other"
            )


def _command(command: PlannedCommand, result: Result) -> Iterator[str]:
    needs = command.needs
    if needs.gpus_per_node > result.gpu_count:
        yield (
            f"asks for {needs.gpus_per_node} GPUs on a node that has {result.gpu_count}: ask for fewer, or "
            "set gpu.count"
        )
    yield from _splits(needs, result)
    for table in command.tables:
        yield from _memory(table, result)
    host = sum(table.host for table in command.tables) * needs.gpus_per_node / GIB
    if result.host_gb is not None and host > result.host_gb:
        yield (
            f"keeps {host:.0f} GiB in the host memory of a node that has {result.host_gb:.0f} GiB: offload "
            "less, or set host.memory_gb"
        )


def _splits(needs: Requirements, result: Result) -> Iterator[str]:
    shapes = {found.name: found.shape for found in result.models}
    for engine in _engines(needs):
        shape = shapes.get(engine.model)
        if shape is not None and shape.heads % engine.tensor_parallel:
            yield (
                f"tensor_model_parallel_size = {engine.tensor_parallel}: does not divide the {shape.heads} "
                f"attention heads of {engine.model}"
            )
    for trained in _trained(needs):
        shape = shapes.get(trained.model)
        if shape is not None and shape.heads % trained.sequence_parallel:
            yield (
                f"ulysses_sequence_parallel_size = {trained.sequence_parallel}: does not divide the "
                f"{shape.heads} attention heads of {trained.model}"
            )


def _engines(needs: Requirements) -> list[EngineUse]:
    if isinstance(needs.work, ReinforcementWork):
        return [policy.engine for policy in needs.work.policies.values()]
    return list(needs.work.engines) if isinstance(needs.work, GenerationWork) else []


def _trained(needs: Requirements) -> list[TrainedModel]:
    if isinstance(needs.work, ReinforcementWork):
        return [p.trained for p in needs.work.policies.values() if p.trained is not None]
    return [needs.work.trained] if isinstance(needs.work, FineTuningWork) else []


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
    if not (present and result.here):
        return
    wanted = {package for s in result.stages for c in s.commands for package in c.needs.packages}
    for package in sorted(wanted & result.machine.missing_packages):
        yield f"{package} is not installed: {_INSTALL.get(package, f'pip install {package}')}"


def _disk(result: Result) -> Iterator[str]:
    disk = result.disk
    if disk.free is not None and disk.total > disk.free:
        yield (
            f"the recipe leaves {disk.total / GB:.0f} GB on a disk with {disk.free / GB:.0f} GB free: keep "
            "fewer checkpoints (longshort.keep_checkpoints), or write elsewhere (output)"
        )
