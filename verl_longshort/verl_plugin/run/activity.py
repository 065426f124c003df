"""What a run is doing at the moment, in a file next to its checkpoints.

`{root}/activity.json` is for people who watch a run, and for the report on a run that died: by then the process
that knew is gone. The same is the message of the run's progress.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from verl_longshort.base.files import write_json
from verl_longshort.base.progress import report

FILE = "activity.json"
STARTING = "starting"
GENERATING = "generating trajectories"
VALIDATING = "validating"


@dataclass(frozen=True, kw_only=True)
class Activity:
    """`doing` in `step` of `total`."""

    step: int
    total: int
    doing: str
    ranks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The Ray node of each worker rank, per policy."""
    workers: Mapping[str, str] = field(default_factory=dict)
    """Ray's id of a worker's actor -> what it is."""

    def on_node(self, node: str) -> list[str]:
        """The worker ranks on a node, as "long rank 1"."""
        return [
            f"{name} rank {rank}"
            for name, nodes in self.ranks.items()
            for rank, held in enumerate(nodes)
            if held == node
        ]


class ActivityFile:
    """The file of one run."""

    def __init__(self, root: str | Path, total: int) -> None:
        self._path = Path(root).absolute() / FILE
        self._total = total
        self._ranks: dict[str, list[str]] = {}
        self._workers: dict[str, str] = {}

    def set_workers(self, workers: Mapping[str, str]) -> None:
        """Remember what the actors of workers are; written with the next `now`."""
        self._workers = dict(workers)

    def set_ranks(self, ranks: Mapping[str, list[str]]) -> None:
        """Remember the Ray node of each worker rank; written with the next `now`."""
        self._ranks = {name: list(nodes) for name, nodes in ranks.items()}

    def now(self, step: int, doing: str) -> None:
        """Say what begins."""
        activity = Activity(step=step, total=self._total, doing=doing, ranks=self._ranks, workers=self._workers)
        write_json(self._path, asdict(activity), indent=None)
        if step and doing != STARTING:
            report(step - 1, self._total, f"step {step}/{self._total}: {doing}")
        else:
            # no part of the steps, so the time left does not count it
            report(0, 0, doing)


def read(root: str | Path) -> Activity | None:
    """The last activity, or None."""
    path = Path(root) / FILE
    return Activity(**json.loads(path.read_text())) if path.exists() else None


def forget(root: str | Path) -> None:
    """Remove what an earlier start of the run wrote."""
    (Path(root) / FILE).unlink(missing_ok=True)


def node_of_worker(_: Any) -> str:
    """The Ray node that this runs on; for `__ray_call__`, which imports this module in the worker."""
    import ray

    return str(ray.get_runtime_context().get_node_id())
