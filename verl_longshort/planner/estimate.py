"""Puts the plan of a recipe together: stages, memory, disk, models."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from longshort_reward.protocol import ROLES

from verl_longshort.base.requirements import (
    FineTuningWork,
    GenerationWork,
    Product,
    ReinforcementWork,
    Requirements,
)
from verl_longshort.planner.host import host_parts
from verl_longshort.planner.machine import Machine
from verl_longshort.planner.memory import MemoryTable, TableMaker, checkpoint_size
from verl_longshort.planner.models import Found, Models, ModelShape
from verl_longshort.planner.step_model import StepTime, simulate
from verl_longshort.planner.work import Work, WorkMaker
from verl_longshort.recipe.assumptions import GB, GIB, Assumptions
from verl_longshort.recipe.recipe import RecipeStage


@dataclass(frozen=True, kw_only=True)
class CheckedStage:
    """A stage whose command was run to its checks."""

    stage: RecipeStage
    group: int
    """Stages of one group run at the same time."""
    needs: tuple[Requirements, ...]
    """Of its `longshort` commands, in their order."""
    problem: str | None
    """Why it cannot run, in one line."""


SCALES = (8, 64, 512)
"""GPUs of simulated steps."""
GROWN = 8
"""Times the recipe's batch at most, for as many times its GPUs; beyond, nothing in the model changes but the batch."""


@dataclass(frozen=True, kw_only=True)
class ScaledStep:
    """A simulated step of a pair's run."""

    gpus: int
    trajectories: int
    separate: bool
    """Each policy has half of the GPUs."""
    one_step_off: bool
    """The next step's trajectories are generated while the policies learn."""
    time: StepTime


@dataclass(frozen=True, kw_only=True)
class PlannedCommand:
    """A command with what was computed for it; no work: its models' shapes are not known."""

    needs: Requirements
    work: Work | None
    tables: tuple[MemoryTable, ...]
    host: Mapping[str, float] = field(default_factory=dict)
    """Part → bytes in the host memory, of a command that trains on the CPU."""
    scaled: tuple[ScaledStep, ...] = ()
    """Of the RL of a pair on GPUs, if it was asked for."""


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """A stage with its estimate."""

    checked: CheckedStage
    commands: tuple[PlannedCommand, ...]
    hours: float
    stated: bool
    """The hours are the recipe's own figure: nothing in the stage runs on a GPU."""

    @property
    def gpus(self) -> int:
        """Of one node, at once."""
        return max((command.needs.gpus_per_node for command in self.commands), default=0)

    @property
    def nodes(self) -> int:
        """Nodes that it uses."""
        return max((command.needs.nodes for command in self.commands), default=1)


@dataclass(frozen=True, kw_only=True)
class Disk:
    """What a recipe leaves on the disk, in bytes, by what it is."""

    parts: dict[str, float]
    free: float | None
    """None: the plan is for another machine, whose disk nobody has described."""

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.parts.values())


@dataclass(frozen=True, kw_only=True)
class Result:
    """A plan."""

    stages: tuple[PlannedStage, ...]
    models: tuple[Found, ...]
    disk: Disk
    machine: Machine
    gpu_count: int
    gpu_gb: float
    host_gb: float | None
    """Of a node; None: not known."""

    @property
    def groups(self) -> list[list[PlannedStage]]:
        """The stages that run at the same time, in order."""
        numbers = dict.fromkeys(stage.checked.group for stage in self.stages)
        return [[stage for stage in self.stages if stage.checked.group == number] for number in numbers]

    @property
    def packages(self) -> set[str]:
        """Those that its commands need beyond what every installation has."""
        return {name for stage in self.stages for command in stage.commands for name in command.needs.packages}

    @property
    def hours(self) -> float:
        """Of the whole recipe: the slowest stage of each group."""
        return sum(max(stage.hours for stage in group) for group in self.groups)


def estimate(
    stages: Sequence[CheckedStage],
    assumptions: Assumptions,
    machine: Machine,
    *,
    offline: bool,
    at_scale: bool = False,
) -> Result:
    """The plan of a recipe whose stages were checked; `at_scale`: with simulated steps of RL."""
    products = {p.path: p for stage in stages for needs in stage.needs for p in needs.products}
    models = Models(products, offline=offline)
    memory = assumptions.gpu.memory_gb or machine.planned_gpu_gb
    planner = _Planner(models, assumptions, memory * GIB, at_scale=at_scale)
    planned = tuple(planner.stage(stage) for stage in stages)
    # whether the recipe can run on this machine, as far as GPUs go
    here = bool(machine.gpu_memory_gb) or not any(stage.gpus for stage in planned)
    parts = _disk_parts(planned, products, models)
    free = assumptions.disk.free_gb or (machine.disk_free_gb if here else None)
    return Result(
        stages=planned,
        models=tuple(models.found),
        disk=Disk(parts=parts, free=None if free is None else free * GB),
        machine=machine,
        gpu_count=assumptions.gpu_count or machine.planned_gpus,
        gpu_gb=memory,
        host_gb=assumptions.host.memory_gb or (machine.host_memory_gb if here else None),
    )


class _UnknownShapeError(Exception):
    """A model whose shape nobody knows."""


class _Planner:
    def __init__(self, models: Models, assumptions: Assumptions, gpu: float, *, at_scale: bool) -> None:
        self._at_scale = at_scale
        self._models = models
        self._tables = TableMaker(shape_of=self._shape, gpu=gpu, assume=assumptions.assume)
        self._work = WorkMaker(shape_of=self._shape, assumptions=assumptions)

    def stage(self, checked: CheckedStage) -> PlannedStage:
        commands = tuple(self._command(needs) for needs in checked.needs)
        on_gpu = [command for command in commands if command.work and _is_estimated(command.needs)]
        computed = sum(command.work.hours for command in on_gpu if command.work)
        return PlannedStage(
            checked=checked,
            commands=commands,
            hours=computed if on_gpu else checked.stage.minutes / 60,
            stated=not on_gpu,
        )

    def _command(self, needs: Requirements) -> PlannedCommand:
        try:
            if isinstance(needs.work, ReinforcementWork):
                work, tables = self._work.reinforce(needs.work), self._tables.reinforce(needs.work)
            elif isinstance(needs.work, FineTuningWork):
                work, tables = self._work.fine_tune(needs.work), self._tables.fine_tune(needs.work)
            elif isinstance(needs.work, GenerationWork):
                work, tables = self._work.generate(needs.work), self._tables.generate(needs.work)
            else:
                work, tables = Work(), []
        except _UnknownShapeError:
            return PlannedCommand(needs=needs, work=None, tables=())
        if needs.gpus_per_node:
            return PlannedCommand(needs=needs, work=work, tables=tuple(tables), scaled=self._scaled(needs))
        return PlannedCommand(needs=needs, work=work, tables=(), host=host_parts(needs, self._shape))

    def _scaled(self, needs: Requirements) -> tuple[ScaledStep, ...]:
        work = needs.work
        if not self._at_scale or not isinstance(work, ReinforcementWork) or len(work.policies) != len(ROLES):
            return ()
        steps = []
        for gpus in SCALES:
            # the recipe's batch, and one that has grown with the GPUs
            grown = min(GROWN, max(1, gpus // (needs.gpus_per_node * needs.nodes)))
            for times in dict.fromkeys((1, grown)):
                parts = self._work.step_parts(work, times)
                for separate, one_step_off in itertools.product((False, True), repeat=2):
                    time = simulate(parts, gpus, separate=separate, one_step_off=one_step_off)
                    steps.append(
                        ScaledStep(
                            gpus=gpus,
                            trajectories=len(parts.trajectories),
                            separate=separate,
                            one_step_off=one_step_off,
                            time=time,
                        )
                    )
        return tuple(steps)

    def _shape(self, name: str) -> ModelShape:
        shape = self._models.find(name).shape
        if shape is None:
            raise _UnknownShapeError(name)
        return shape


def _is_estimated(needs: Requirements) -> bool:
    """Whether the throughputs of the assumptions apply: on GPUs, and to somebody else's server."""
    engines = needs.work.engines if isinstance(needs.work, GenerationWork) else ()
    return needs.gpus_per_node > 0 or any(engine.name == "endpoint" for engine in engines)


def _disk_parts(stages: Sequence[PlannedStage], products: Mapping[str, Product], models: Models) -> dict[str, float]:
    def parameters(model: str) -> int:
        shape = models.find(model).shape
        return shape.parameters if shape else 0

    parts: dict[str, float] = {}
    made = (product for product in products.values() if product.bytes_per_parameter)
    if tuned := sum(product.bytes_per_parameter * parameters(product.path) for product in made):
        parts["fine-tuned models"] = tuned
    for stage in stages:
        for work in (command.needs.work for command in stage.commands):
            if isinstance(work, ReinforcementWork):
                parts[f"checkpoints of {stage.checked.stage.name}"] = sum(
                    (checkpoint_size(policy, shape) if (shape := models.find(policy.engine.model).shape) else 0.0)
                    * (work.checkpoints if policy.checkpoints is None else policy.checkpoints)
                    for policy in work.policies.values()
                )
    if download := sum(found.download for found in models.found):
        parts["models from the Hub (its cache, which may lie on another disk)"] = download
    return parts
