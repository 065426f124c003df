"""What a run is doing at the moment, in a file beside its checkpoints.

`{root}/activity.json` is for people who look in on a run, and for the report on one that died: the process
that knew is gone then.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from longshort_reward.protocol import Role

FILE = "activity.json"


@dataclass(frozen=True, kw_only=True)
class Activity:
    """`doing` in `step` of `total`; `ranks` holds the Ray node of each worker rank, per role."""

    step: int
    total: int
    doing: str
    ranks: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def on_node(self, node: str) -> list[str]:
        """The worker ranks on a node, as "long rank 1"."""
        return [
            f"{role} rank {rank}"
            for role, nodes in self.ranks.items()
            for rank, held in enumerate(nodes)
            if held == node
        ]


class ActivityFile:
    """The file of one run; whoever reads it never sees half of it."""

    def __init__(self, root: str | Path, total: int) -> None:
        self._path = Path(root).absolute() / FILE
        self._total = total
        self._ranks: dict[str, list[str]] = {}

    def place(self, ranks: Mapping[Role, list[str]]) -> None:
        """Remember the Ray node of each worker rank; written with the next `now`."""
        self._ranks = {role.value: list(nodes) for role, nodes in ranks.items()}

    def now(self, step: int, doing: str) -> None:
        """Say what begins."""
        activity = Activity(step=step, total=self._total, doing=doing, ranks=self._ranks)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{FILE}.tmp")
        temporary.write_text(json.dumps(asdict(activity)))
        os.replace(temporary, self._path)


def read(root: str | Path) -> Activity | None:
    """What was noted last, or None."""
    path = Path(root) / FILE
    return Activity(**json.loads(path.read_text())) if path.exists() else None


def forget(root: str | Path) -> None:
    """Remove what an earlier start of the run noted."""
    (Path(root) / FILE).unlink(missing_ok=True)


def node_of_worker(_: Any) -> str:
    """The Ray node that this runs on; for `__ray_call__`, which imports this module in the worker."""
    import ray

    return str(ray.get_runtime_context().get_node_id())
