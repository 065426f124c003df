"""Prints a plan: stages, memory on a GPU, models, disk, and what is wrong with it."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from verl_longshort.planner.estimate import PlannedStage, Result, ScaledStep
from verl_longshort.planner.memory import MemoryTable
from verl_longshort.recipe.assumptions import GB, GIB

_NARROWEST = 110


def show(result: Result, against: Sequence[str], console: Console, renamed: tuple[str, str]) -> None:
    """Print everything; `renamed` is the scratch folder of the dry run and the recipe's output."""
    if not console.is_terminal:
        console.width = max(console.width, _NARROWEST)
    verdict = [Text(f"✗ {problem}", "bold red") for problem in against]
    verdict = verdict or [Text("✓ all stages are valid, and the plan fits", "bold green")]
    models, disk = _models(result, renamed), _disk_and_gpus(result)
    scaled = _scaled(result)
    for part in (_stages(result), *_notes(result), *_memory(result), *scaled, *models, *disk, *verdict):
        if isinstance(part, Text):
            part.plain = part.plain.replace(*renamed)
        console.print(part, soft_wrap=isinstance(part, Text))


def _stages(result: Result) -> Table:
    table = Table("", "stage", "commands", "GPUs", "tokens generated", "tokens trained", "hours", box=SIMPLE_HEAD)
    for column in table.columns[3:]:
        column.justify = "right"
    for stage in result.stages:
        table.add_row(*_stage_row(stage))
    table.add_section()
    table.add_row("", "all", "", "", "", "", _hours(result.hours))
    return table


def _stage_row(stage: PlannedStage) -> list[str | Text]:
    unchecked = any(not command.needs.checked for command in stage.commands) or not stage.commands
    sign = Text("?", "yellow") if unchecked else Text("✓", "green")
    nodes = f"{stage.nodes} x " if stage.nodes > 1 else ""
    names = dict.fromkeys(command.needs.command for command in stage.commands)
    return [
        sign if stage.checked.problem is None else Text("✗", "red"),
        stage.checked.stage.name,
        ", ".join(names) or "no longshort command",
        f"{nodes}{stage.gpus}" if stage.gpus else "-",
        _tokens(sum(c.work.generated for c in stage.commands if c.work)),
        _tokens(sum(c.work.trained for c in stage.commands if c.work)),
        _hours(stage.hours) + ("*" if stage.stated else ""),
    ]


def _notes(result: Result) -> Iterator[Text]:
    if any(stage.stated for stage in result.stages):
        yield Text("  * the recipe's own figure", "dim")
    for stage in result.stages:
        for command in stage.commands:
            unknown = ["is not estimated: the shape of a model is not known"] if command.work is None else []
            for note in (*command.needs.notes, *unknown):
                yield Text(f"  {stage.checked.stage.name}: {command.needs.command} {note}", "dim")


def _memory(result: Result) -> Iterator[Text | Table]:
    """Of each stage and pool of GPUs; one that looks like an earlier one is not shown again."""
    shown: list[object] = []
    for stage in result.stages:
        for command in stage.commands:
            for table in command.tables:
                if (table.title, table.parts) not in shown:
                    shown.append((table.title, table.parts))
                    title = f"{stage.checked.stage.name}: GiB on {table.title} (of {result.gpu_gb:.0f})"
                    yield Text(title, "italic")
                    yield _memory_table(table, result.gpu_gb)
                    yield from _below_memory(table, command.needs.gpus_per_node)


def _memory_table(table: MemoryTable, gpu_gb: float) -> Table:
    shown = Table("part", box=SIMPLE_HEAD)
    for phase in table.phases:
        shown.add_column(phase, justify="right")
    for part, sizes in table.parts.items():
        shown.add_row(part, *(f"{sizes[phase] / GIB:.1f}" if phase in sizes else "" for phase in table.phases))
    shown.add_section()
    totals = [table.total(phase) / GIB for phase in table.phases]
    shown.add_row("all", *(Text(f"{total:.1f}", "red" if total > gpu_gb else "green") for total in totals))
    return shown


def _below_memory(table: MemoryTable, gpus_per_node: int) -> Iterator[Text]:
    for part, room in table.caches.items():
        sequences = room.tokens / max(room.engine.max_length, 1)
        yield Text(
            f"  {part}: {room.tokens / 1000:.0f} K tokens per engine, {sequences:.0f} sequences of "
            f"{room.engine.max_length} (max_num_seqs {room.engine.max_num_seqs})",
            "dim",
        )
    if table.host:
        yield Text(f"  host memory of a node: {table.host * gpus_per_node / GIB:.0f} GiB", "dim")


def _scaled(result: Result) -> Iterator[Text | Table]:
    """A step of RL by GPUs, pools, and when learners learn."""
    for stage in result.stages:
        for command in stage.commands:
            if command.scaled:
                yield Text(f"{stage.checked.stage.name}: a step at scale, simulated (docs/recipes.md)", "italic")
                yield _scaled_table(command.scaled)


def _scaled_table(steps: Sequence[ScaledStep]) -> Table:
    columns = ("GPUs", "trajectories", "pools", "learning", "step s", "generating s", "learning s", "tokens/s", "idle")
    table = Table(*columns, box=SIMPLE_HEAD)
    for place, column in enumerate(table.columns):
        column.justify = "left" if place in (2, 3) else "right"
    for step in steps:
        time = step.time
        table.add_row(
            f"{step.gpus:,}",
            f"{step.trajectories:,}",
            "separate" if step.separate else "shared",
            "one step off" if step.one_step_off else "synchronous",
            *(f"{seconds:,.0f}" for seconds in (time.seconds, time.generating_s, time.learning_s, time.tokens_per_s)),
            f"{time.idle:.0%}",
        )
    return table


def _models(result: Result, renamed: tuple[str, str]) -> Iterator[Table]:
    given = [found for found in result.models if not found.made]
    if given:
        table = Table("model", "parameters", "where", box=SIMPLE_HEAD)
        table.columns[1].justify = "right"
        for found in given:
            size = f"{found.shape.parameters / 1e9:.3f} B" if found.shape else "?"
            table.add_row(found.name.replace(*renamed), size, found.where or Text(found.problem, "red"))
        yield table


def _disk_and_gpus(result: Result) -> Iterator[Text]:
    disk, machine = result.disk, result.machine
    for part, size in disk.parts.items():
        yield Text(f"disk: {size / GB:8.1f} GB  {part}")
    elsewhere = "not known: there is no GPU here, so the recipe runs elsewhere (disk.free_gb)"
    free = elsewhere if disk.free is None else f"{disk.free / GB:.0f} GB"
    yield Text(f"disk: {disk.total / GB:8.1f} GB  in all; free: {free}")
    if any(stage.gpus for stage in result.stages):
        here = f"{len(machine.gpu_memory_gb)} GPUs here" if machine.gpu_memory_gb else "no GPU here"
        there = f"planned for nodes of {result.gpu_count} x {result.gpu_gb:.0f} GiB"
        yield Text(f"GPUs: {here}; {there} (gpu.count, gpu.memory_gb)")
        for package in sorted(result.packages):
            state = "not installed here" if package in machine.missing_packages else "installed"
            yield Text(f"package {package}: {state}")
    yield Text("Hours and tokens rest on the assumptions in assumptions.yaml (docs/recipes.md)", "dim")


def _tokens(count: float) -> str:
    return f"{count / 1e6:,.1f} M" if count else "-"


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 0.1 else f"{hours * 60:.1f} min"
