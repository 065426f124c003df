"""Checkpoints of a pair: where they lie, which one counts, which one is best. Nothing here knows verl.

    {root}/long/global_step_8/actor/…            what verl saves for a policy
    {root}/short/global_step_8/actor/…
    {root}/global_step_8/pair.json, data.pt      the pair's own state: schedule, place, data position
    {root}/latest_checkpointed_iteration.txt     written last, by an atomic rename
    {root}/best.json                             the best validated checkpoint so far

Only the tracker file decides what a resumed run starts from, so a kill at any moment leaves either the old or
the new checkpoint, never a mixture.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role

from verl_longshort.base.files import write_text
from verl_longshort.core.schedule import Schedule

TRACKER = "latest_checkpointed_iteration.txt"
_STEP = "global_step_{}"


@dataclass(frozen=True, kw_only=True)
class PairState:
    """What a resumed run must agree with."""

    step: int
    schedule: list[str]
    steps_per_round: int


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Accuracy (0 … 1) and mean tokens of the pair on the validation split after `step` steps."""

    step: int
    accuracy: float
    tokens: float


class CheckpointStore:
    """The folder of a run's checkpoints."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()

    def pair_folder(self, step: int) -> Path:
        """The folder of the pair's own state."""
        return self.root / _STEP.format(step)

    def policy_folder(self, role: Role, step: int) -> Path:
        """The folder that verl writes for a policy."""
        return self.root / role.value / _STEP.format(step)

    def latest(self) -> int | None:
        """The step of the last complete checkpoint, or None for a fresh run.

        Raises UserError when the tracker names a checkpoint that is not there.
        """
        tracker = self.root / TRACKER
        if not tracker.exists():
            return None
        step = int(tracker.read_text())
        if not self.exists(step):
            remedy = "its folder is gone; remove the tracker to start afresh or restore the folder"
            raise UserError(str(tracker), step, remedy)
        return step

    def load(self, step: int, schedule: Schedule) -> PairState:
        """Read a checkpoint's state. Raises UserError when the part of the schedule that has begun was another."""
        state = PairState(**json.loads((self.pair_folder(step) / "pair.json").read_text()))
        if not schedule.agrees_with(state.schedule, state.steps_per_round, state.step):
            was = f"{state.schedule} with {state.steps_per_round} steps each"
            remedy = f"step {step} was reached under {was}; keep what has begun, or use a new folder"
            raise UserError("longshort.schedule", [r.value for r in schedule.rounds], remedy)
        return state

    def commit(self, state: PairState) -> None:
        """Declare the checkpoint of `state.step` complete; call when everything else is on disk."""
        write_text(self.pair_folder(state.step) / "pair.json", json.dumps(asdict(state)), durable=True)
        write_text(self.root / TRACKER, str(state.step), durable=True)

    def exists(self, step: int) -> bool:
        """Whether a complete checkpoint of `step` is there."""
        return (self.pair_folder(step) / "pair.json").exists()

    def prune(self, keep: int) -> None:
        """Delete all but the last `keep` checkpoints; the best one stays."""
        best = self.read_best()
        steps = sorted(int(p.name.rsplit("_", 1)[1]) for p in self.root.glob(_STEP.format("*")))
        for step in steps[:-keep]:
            if best is None or step != best["best"]["step"]:
                # the pair's own folder first: without it the rest is no checkpoint
                for folder in (self.pair_folder(step), *(self.policy_folder(role, step) for role in ROLES)):
                    shutil.rmtree(folder, ignore_errors=not folder.exists())

    def read_best(self) -> dict[str, Any] | None:
        """`{"start": …, "best": …}` as written by `write_best`, or None."""
        path = self.root / "best.json"
        return json.loads(path.read_text()) if path.exists() else None

    def write_best(self, start: Validation, best: Validation, models: Mapping[Role, str]) -> None:
        """Record the best validated checkpoint and where its two Hugging Face models lie."""
        named = {role.value: model for role, model in models.items()}
        record = {"start": asdict(start), "best": asdict(best), "models": named}
        write_text(self.root / "best.json", json.dumps(record, indent=1), durable=True)
