"""Prints a plan: stages, memory on a GPU, models, disk, and what speaks against it."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from verl_longshort.planner.estimate import PlannedStage, Result
from verl_longshort.planner.tables import MemoryTable
from verl_longshort.recipe.assumptions import GB, GIB

_MILLION = 1e6
_NARROWEST = 110


class _Printer:
    """Prints with one path in place of another."""

    def __init__(self, console: Console, renamed: tuple[str, str]) -> None:
        self._console = console
        self._renamed = renamed

    def text(self, text: str) -> str:
        return text.replace(*self._renamed)

    def line(self, text: str, style: str = "") -> None:
        self._console.print(Text(self.text(text), style=style), soft_wrap=True)

    def table(self, table: Table) -> None:
        self._console.print(table)


def show(result: Result, against: Sequence[str], console: Console, renamed: tuple[str, str]) -> None:
    """Print everything; `renamed` is the scratch folder of the dry run and the recipe's output."""
    if not console.is_terminal:
        console.width = max(console.width, _NARROWEST)
    printer = _Printer(console, renamed)
    printer.table(_stages(result))
    for line in _notes(result):
        printer.line(f"  {line}", "dim")
    _memory(result, printer)
    _models(result, printer)
    _disk(result, printer)
    _place(result, printer)
    for problem in against:
        printer.line(f"✗ {problem}", "bold red")
    if not against:
        printer.line("✓ all stages are valid, and the plan fits", "bold green")


def _stages(result: Result) -> Table:
    table = Table(*("", "stage", "commands", "GPUs", "tokens generated", "tokens trained", "hours"), box=SIMPLE_HEAD)
    for column in table.columns[3:]:
        column.justify = "right"
    for stage in result.stages:
        table.add_row(*_stage_row(stage))
    table.add_section()
    table.add_row("", "all", "", "", "", "", _hours(result.hours))
    return table


def _stage_row(stage: PlannedStage) -> list[str | Text]:
    wrong = stage.checked.problem is not None
    unchecked = any(not command.needs.checked for command in stage.commands) or not stage.commands
    sign = Text("✗", "red") if wrong else Text("?", "yellow") if unchecked else Text("✓", "green")
    nodes = f"{stage.nodes} x " if stage.nodes > 1 and stage.gpus else ""
    names = dict.fromkeys(command.needs.command for command in stage.commands)
    return [
        sign,
        stage.checked.stage.name,
        ", ".join(names) or "no longshort command",
        f"{nodes}{stage.gpus}" if stage.gpus else "-",
        _tokens(sum(c.work.generated for c in stage.commands if c.work)),
        _tokens(sum(c.work.trained for c in stage.commands if c.work)),
        _hours(stage.hours) + ("*" if stage.stated else ""),
    ]


def _notes(result: Result) -> Iterator[str]:
    if any(stage.stated for stage in result.stages):
        yield "* the recipe's own figure"
    for stage in result.stages:
        for command in stage.commands:
            for note in command.needs.notes:
                yield f"{stage.checked.stage.name}: {command.needs.command} {note}"
            if command.work is None:
                name = stage.checked.stage.name
                yield f"{name}: {command.needs.command} is not estimated: the shape of a model is not known"


def _memory(result: Result, printer: _Printer) -> None:
    shown: list[object] = []
    for stage in result.stages:
        for command in stage.commands:
            for table in command.tables:
                content = (table.title, table.parts)
                if content not in shown:
                    shown.append(content)
                    name = stage.checked.stage.name
                    printer.line(f"{name}: GiB on {table.title} (of {result.gpu_gb:.0f})", "italic")
                    printer.table(_memory_table(table, result.gpu_gb))
                    _below_memory(table, command.needs.gpus_per_node, printer)


def _memory_table(table: MemoryTable, gpu_gb: float) -> Table:
    shown = Table("part", box=SIMPLE_HEAD)
    for phase in table.phases:
        shown.add_column(phase, justify="right")
    for part, sizes in table.parts.items():
        cells = [f"{sizes[phase] / GIB:.1f}" if phase in sizes else "" for phase in table.phases]
        shown.add_row(part, *cells)
    shown.add_section()
    totals = [table.total(phase) / GIB for phase in table.phases]
    styles = ["red" if total > gpu_gb else "green" for total in totals]
    colored = [Text(f"{total:.1f}", style) for total, style in zip(totals, styles, strict=True)]
    shown.add_row("all", *colored)
    return shown


def _below_memory(table: MemoryTable, gpus_per_node: int, printer: _Printer) -> None:
    for part, room in table.caches.items():
        sequences = room.tokens / max(room.engine.max_length, 1)
        printer.line(
            f"  {part}: {room.tokens / 1000:.0f} K tokens per engine, {sequences:.0f} sequences of "
            f"{room.engine.max_length} (max_num_seqs {room.engine.max_num_seqs})",
            "dim",
        )
    if table.host:
        printer.line(f"  host memory of a node: {table.host * gpus_per_node / GIB:.0f} GiB", "dim")


def _models(result: Result, printer: _Printer) -> None:
    given = [found for found in result.models if not found.made]
    if not given:
        return
    table = Table("model", "parameters", "where", box=SIMPLE_HEAD)
    table.columns[1].justify = "right"
    for found in given:
        size = f"{found.shape.parameters / 1e9:.3f} B" if found.shape else "?"
        table.add_row(printer.text(found.name), size, found.where or Text(found.problem, "red"))
    printer.table(table)


def _disk(result: Result, printer: _Printer) -> None:
    disk = result.disk
    for part, size in disk.parts.items():
        printer.line(f"disk: {size / GB:8.1f} GB  {part}")
    elsewhere = "not known: there is no GPU here, so the recipe runs elsewhere (disk.free_gb)"
    free = elsewhere if disk.free is None else f"{disk.free / GB:.0f} GB"
    printer.line(f"disk: {disk.total / GB:8.1f} GB  in all; free: {free}")


def _place(result: Result, printer: _Printer) -> None:
    machine = result.machine
    there = f"planned for nodes of {result.gpu_count} x {result.gpu_gb:.0f} GiB"
    if any(stage.gpus for stage in result.stages):
        here = f"{len(machine.gpu_memory_gb)} GPUs here" if machine.gpu_memory_gb else "no GPU here"
        printer.line(f"GPUs: {here}; {there} (gpu.count, gpu.memory_gb)")
        wanted = {package for s in result.stages for c in s.commands for package in c.needs.packages}
        for package in sorted(wanted):
            state = "not installed here" if package in machine.missing_packages else "installed"
            printer.line(f"package {package}: {state}")
    printer.line("Hours and tokens rest on the assumptions in assumptions.yaml (docs/recipes.md)", "dim")


def _tokens(count: float) -> str:
    return f"{count / _MILLION:,.1f} M" if count else "-"


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 0.1 else f"{hours * 60:.1f} min"
