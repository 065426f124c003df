"""The dry run of a recipe, as one stage's process sees it.

`longshort recipe FILE --dry-run` runs the commands of all stages with `LONGSHORT_DRY_RUN` set to a folder. A
command then checks its settings and inputs exactly as in a real run, tells what it requires, and ends
(`base.stage.execute`). Inputs that an earlier stage will write do not exist yet: `DryRun.planned` finds what is known
about them, and `base.files` accepts them. Light: no verl, no torch.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from verl_longshort.base.device import cpu_chosen
from verl_longshort.base.requirements import Product, Requirements

VARIABLE = "LONGSHORT_DRY_RUN"
_PLANNED = "planned.json"


class DryRun:
    """The dry run of one stage, told through files in a folder.

    `planned.json` holds what the stages before will have written, and the GPUs of a node; each command of the
    stage adds a file of its requirements.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def prepare(cls, folder: Path, *, products: Sequence[Product], gpus_per_node: int) -> "DryRun":
        """Make the folder of a stage. Called by the launcher."""
        folder.mkdir(parents=True)
        content = {"gpus_per_node": gpus_per_node, "products": [asdict(product) for product in products]}
        (folder / _PLANNED).write_text(json.dumps(content), encoding="utf-8")
        return cls(folder)

    @property
    def gpus_per_node(self) -> int:
        """GPUs of a node in the plan, which need not be this machine."""
        return int(self._plan["gpus_per_node"])

    def planned(self, path: str | Path) -> Product | None:
        """What will lie at `path`; None when no stage before writes it.

        A path below a folder that some stage will write counts too, unless it is known what the folder will
        hold.
        """
        wanted = absolute(path)
        known = {product.path: product for product in self._products()}
        if wanted in known:
            return known[wanted]
        above = [folder for folder in known if _is_below(wanted, folder)]
        if not above or any(_is_below(other, folder) for folder in above for other in known):
            return None
        return Product(path=wanted, model=known[max(above, key=len)].model)

    def finish(self, requirements: Requirements) -> NoReturn:
        """Tell what the command requires, and end the process well: it is not to do its work."""
        file = self.folder / f"{len(self.reported()):03d}.json"
        file.write_text(json.dumps(asdict(requirements)), encoding="utf-8")
        raise SystemExit(0)

    def refuse(self, command: str) -> NoReturn:
        """End the process of a command that is no stage: it must not do its work in a dry run."""
        note = "was neither run nor checked: it does not support dry runs"
        self.finish(Requirements(command=command, checked=False, notes=(note,)))

    def reported(self) -> list[Requirements]:
        """The requirements of the stage's commands so far, in their order."""
        files = sorted(self.folder.glob("[0-9]*.json"))
        return [_parse(Requirements, json.loads(file.read_text(encoding="utf-8"))) for file in files]

    @cached_property
    def _plan(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / _PLANNED).read_text(encoding="utf-8"))
        return content

    def _products(self) -> Iterator[Product]:
        yield from _parse(tuple[Product, ...], self._plan["products"])
        for requirements in self.reported():
            yield from requirements.products


def dry_run() -> DryRun | None:
    """The dry run that this process takes part in; None in a real run."""
    folder = os.environ.get(VARIABLE)
    return DryRun(Path(folder)) if folder else None


def planning() -> bool:
    """Whether this process only plans: for a machine that may be another one, so what is installed here says nothing
    (a command's `Requirements.packages` say what it needs).
    """
    return dry_run() is not None


def planned_gpus() -> int | None:
    """GPUs that the plan gives a command without settings for them, none where the recipe chose the CPU; None in a
    real run.
    """
    dry = dry_run()
    if dry is None:
        return None
    return 0 if cpu_chosen() else dry.gpus_per_node


def gpus_per_node() -> int:
    """GPUs of a node: in the plan, in a real run of this machine."""
    dry = dry_run()
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) if dry is None else dry.gpus_per_node


def is_planned(path: str | Path) -> bool:
    """Whether `path` will be written by a stage before, in a dry run; False in a real one."""
    dry = dry_run()
    return dry is not None and dry.planned(path) is not None


def absolute(path: str | Path) -> str:
    """The path as products are named."""
    return os.path.abspath(Path(path).expanduser())


def _parse(kind: Any, content: Any) -> Any:
    # Here, because every command imports this module, and pydantic takes a while.
    from pydantic import TypeAdapter

    return TypeAdapter(kind).validate_python(content)


def _is_below(path: str, folder: str) -> bool:
    return Path(folder) in Path(path).parents
