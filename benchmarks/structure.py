"""The structure of a checkout of this project in numbers: rooms, imports, lengths; printed as Markdown.

    python benchmarks/structure.py [CHECKOUT] [--against OTHER_CHECKOUT]

With `--against` the other checkout is "before" and the first one "after". The sources are parsed, never imported.

Rooms. A room is a direct child of `verl_longshort/`, a sub-package with all below it or a single module; all of
`reward/longshort_reward/` is one more. `verl_longshort/__init__.py` counts in the totals and belongs to no room.
Lines are those of `wc -l`, blank ones and comments included. Functions are all `def`s, methods and nested ones too.

Imports. Every `import` and `from` counts, those inside functions and under TYPE_CHECKING too; modules loaded by a
name in a string do not. `from a import b` leads to the module `a.b` if there is one, otherwise to `a`; the
packages above, whose `__init__` Python runs as well, are not counted. An arrow is an ordered pair of rooms of which
the first imports the second; a statement leading to several other rooms counts once.

Upward arrows. Against the declared order are those that break `ROOMS`, the order from the ground up in the
checkout's `tests/unit/test_layers.py`. A checkout may declare none, so those against the best order are reported
too: an order of the rooms that breaks as few import statements as any can (exactly, not greedily; the work doubles
with each room of a circle). Floors: the rooms on the longest path once the latter are gone. A circle is a strongly
connected component of two or more.

Lengths. Of the package and the reward together; a function's from `def` to its end, docstring included and
decorators not; p90 is interpolated. A private function used once is a module-level `_name` that its own module
mentions once besides the definition; uses in other modules, tests among them, are not looked for.
"""

import argparse
import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from statistics import median, quantiles

Def = ast.FunctionDef | ast.AsyncFunctionDef
Arrows = dict[tuple[str, str], set[str]]
"""From room, to room: `file:line` of each import statement."""

VERL_FOLDER = "verl_longshort/verl_plugin/"
SHORT = 5
LONGEST = 10


@dataclass(frozen=True)
class Source:
    """One file, its path counted from the checkout."""

    path: str
    name: str
    lines: int
    tree: ast.Module

    @property
    def room(self) -> str:
        """Empty for `verl_longshort/__init__.py`."""
        package, _, rest = self.name.partition(".")
        return rest.partition(".")[0] if package == "verl_longshort" else package

    def functions(self) -> list[tuple[int, str]]:
        """Length and place of every function."""
        defs = [node for node in ast.walk(self.tree) if isinstance(node, Def)]
        return [(length(node), f"{self.path}:{node.lineno} {node.name}") for node in defs]

    def used_once(self) -> list[int]:
        """Length of every private module-level function that is mentioned once besides its definition."""
        mentioned = [node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)]
        private = [node for node in self.tree.body if isinstance(node, Def) and node.name.startswith("_")]
        return [length(node) for node in private if mentioned.count(node.name) == 1]

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full name: `a.b` for `import a.b`, `a.b.c` for `from a.b import c`."""
        package = self.name if self.path.endswith("__init__.py") else self.name.rpartition(".")[0]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                start = resolve_name("." * node.level + (node.module or ""), package)
                yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def length(node: Def) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def read(checkout: Path, folder: str, base: str = "") -> list[Source]:
    """All Python files of `base`/`folder`; none if there is no such folder."""
    found = []
    for file in sorted((checkout / base / folder).rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        name = ".".join(file.relative_to(checkout / base).with_suffix("").parts).removesuffix(".__init__")
        found.append(Source(file.relative_to(checkout).as_posix(), name, text.count("\n"), ast.parse(text)))
    return found


def declared_order(checkout: Path) -> list[str]:
    """`ROOMS` of the checkout's own test of its layers; empty if it has none."""
    file = checkout / "tests" / "unit" / "test_layers.py"
    for node in ast.parse(file.read_text(encoding="utf-8")).body if file.exists() else ():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS":
            return list(ast.literal_eval(node.value))
    return []


def circles(arrows: Iterable[tuple[str, str]]) -> list[list[str]]:
    """The strongly connected components of two or more."""
    ahead = defaultdict(set)
    for start, end in arrows:
        ahead[start].add(end)
    for middle in ahead:  # Warshall's algorithm: all that can be reached
        for reached in ahead.values():
            if middle in reached:
                reached.update(ahead[middle])
    found = {frozenset(other for other in ahead[node] if node in ahead.get(other, ())) for node in ahead}
    return sorted(sorted(circle) for circle in found if len(circle) > 1)


def against_best_order(arrows: Arrows, circle: Sequence[str]) -> Arrows:
    """The arrows that break the order of a circle's rooms in which they stand for the fewest statements."""

    @cache
    def best(rooms: frozenset[str]) -> tuple[int, int, list[tuple[str, str]]]:
        orders = []
        for ground in sorted(rooms):
            upward = [(ground, other) for other in sorted(rooms) if (ground, other) in arrows]
            statements, number, rest = best(rooms - {ground})
            statements += sum(len(arrows[arrow]) for arrow in upward)
            orders.append((statements, number + len(upward), upward + rest))
        return min(orders, default=(0, 0, []))

    return {arrow: arrows[arrow] for arrow in best(frozenset(circle))[2]}


def floors(arrows: Iterable[tuple[str, str]]) -> int:
    @cache
    def height(room: str) -> int:
        return 1 + max((height(end) for start, end in arrows if start == room), default=0)

    return max((height(start) for start, _ in arrows), default=1)


def counted(arrows: Arrows) -> str:
    return f"{len(arrows)} ({len(set().union(*arrows.values()))})"


def median_p90_max(values: Sequence[int]) -> str:
    return f"{median(values):g} / {quantiles(values, n=10, method='inclusive')[-1]:.0f} / {max(values)}"


def size(sources: Iterable[Source]) -> list[str]:
    """Files, lines and functions; empty where there is no file."""
    rows = [(1, source.lines, len(source.functions())) for source in sources]
    return [f"{sum(column):,}" for column in zip(*rows, strict=True)] or [""] * 3


class Checkout:
    """What is reported of one checkout: `sizes` by room, `numbers` and `lists` by title."""

    def __init__(self, root: Path) -> None:
        self.sources = read(root, "verl_longshort") + read(root, "longshort_reward", "reward")
        if not self.sources:
            raise SystemExit(f"{root}: no checkout of this project")
        self.rooms = sorted({source.room for source in self.sources} - {""})
        self.sizes = {f"`{room}`": size(s for s in self.sources if s.room == room) for room in self.rooms}
        self.sizes["package and reward"] = size(self.sources)
        self.sizes |= {folder: size(read(root, folder)) for folder in ("tests", "benchmarks")}
        self.numbers: dict[str, object] = {"rooms": len(self.rooms)}
        self.lists: dict[str, list[str]] = {}
        self.count_imports(declared_order(root))
        self.count_verl()
        self.count_lengths()

    def count_imports(self, order: list[str]) -> None:
        modules = {source.name: source for source in self.sources}
        arrows: Arrows = defaultdict(set)
        files = set()
        for source in self.sources:
            for line, name in source.imports():
                target = modules.get(name) or modules.get(name.rpartition(".")[0]) or source
                files.add((source.path, target.path))
                if source.room and target.room and source.room != target.room:
                    arrows[source.room, target.room].add(f"{source.path}:{line}")
        if order and (missing := set(self.rooms) - set(order)):
            raise SystemExit(f"the declared order of rooms lacks {', '.join(sorted(missing))}")
        upward = {(a, b): at for (a, b), at in arrows.items() if order and order.index(b) > order.index(a)}
        against = {k: at for circle in circles(arrows) for k, at in against_best_order(arrows, circle).items()}
        self.numbers |= {
            "arrows between rooms (import statements)": counted(arrows),
            "arrows against the declared order (import statements)": counted(upward) if order else "none declared",
            "arrows against the best order (import statements)": counted(against),
            "floors": floors(arrows.keys() - against.keys()),
        }
        for title, found in (("declared", upward), ("best", against)):
            arrows_at = [f"`{a}` → `{b}`: {', '.join(sorted(at))}" for (a, b), at in sorted(found.items())]
            self.lists[f"Arrows against the {title} order"] = arrows_at
        if not order:
            self.lists["Arrows against the declared order"] = ["no order is declared"]
        for kind, members in (("rooms", circles(arrows)), ("files", circles(files))):
            self.numbers[f"circles between {kind} ({kind} in them)"] = f"{len(members)} ({sum(map(len, members))})"
            self.lists[f"Circles between {kind}"] = [", ".join(circle) for circle in members]

    def count_verl(self) -> None:
        verl = [s for s in self.sources if any(name.partition(".")[0] == "verl" for _, name in s.imports())]
        outside = sum(not source.path.startswith(VERL_FOLDER) for source in verl)
        self.numbers["files importing verl"] = len(verl)
        self.numbers[f"all of them below `{VERL_FOLDER}`"] = f"no, {outside} are not" if outside else "yes"
        at = {room: [Path(s.path).name for s in verl if s.room == room] for room in self.rooms}
        self.lists["Files importing verl"] = [f"`{room}` {len(f)}: {', '.join(f)}" for room, f in at.items() if f]

    def count_lengths(self) -> None:
        functions = [function for source in self.sources for function in source.functions()]
        once = [lines for source in self.sources for lines in source.used_once()]
        self.numbers |= {
            "lines of a file: median / p90 / max": median_p90_max([source.lines for source in self.sources]),
            "lines of a function: median / p90 / max": median_p90_max([lines for lines, _ in functions]),
            f"private functions used once (at most {SHORT} lines)": f"{len(once)} ({sum(n <= SHORT for n in once)})",
        }
        longest = sorted(functions, key=lambda function: (-function[0], function[1]))[:LONGEST]
        self.lists["Longest functions"] = [f"{place} {lines}" for lines, place in longest]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows):
        print(f"| {' | '.join(map(str, row))} |")


def show(checkouts: Mapping[str, Checkout]) -> None:
    """Numbers and rooms side by side, then the lists."""
    every = list(checkouts.values())
    table(["", *checkouts], [[label, *(c.numbers[label] for c in every)] for label in every[0].numbers])
    print("\n## Rooms\n")
    head = [f"{title} {label}".strip() for label in checkouts for title in ("files", "lines", "functions")]
    labels = sorted({label for c in every for label in c.sizes}, key=lambda label: (label[0] != "`", label))
    table(["", *head], [[label, *(x for c in every for x in c.sizes.get(label, [""] * 3))] for label in labels])
    for title in every[0].lists:
        for label, checkout in checkouts.items():
            print(f"\n## {title} {label}".rstrip() + "\n")
            print("\n".join(f"- {item}" for item in checkout.lists[title] or ["none"]))


def main() -> None:
    parser = argparse.ArgumentParser(description="The structure of a checkout in numbers, as Markdown.")
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[1], metavar="CHECKOUT")
    parser.add_argument("--against", type=Path, metavar="OTHER_CHECKOUT", help="the state before")
    arguments = parser.parse_args()
    now = Checkout(arguments.checkout)
    show({"before": Checkout(arguments.against), "after": now} if arguments.against else {"": now})


if __name__ == "__main__":
    main()
