"""Checkpoints of a pair: where they lie, which one counts, which one is best. Nothing here knows verl.

    {root}/long/global_step_8/actor/…            what verl saves for a policy
    {root}/short/global_step_8/actor/…           with longshort.tied one policy, in {root}/tied
    {root}/global_step_8/pair.json, data.pt      the pair's own state: schedule, place, data position, file sizes
    {root}/latest_checkpointed_iteration.txt     written last, by an atomic rename
    {root}/best.json                             the best validated checkpoint so far

The tracker file decides what a resumed run starts from, so a kill at any moment leaves either the old or the new
checkpoint, never a mixture. Where the tracker is unreadable, or what it names is not whole (a power cut), the newest
whole checkpoint before it counts. A policy that has not learned since an earlier checkpoint shares that one's files by
hard links: every checkpoint is complete by itself, and deleting one never takes a file from another.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError
from longshort_reward.protocol import Role

from verl_longshort.base.files import sync_to_disk, write_text
from verl_longshort.core.policies import POLICIES
from verl_longshort.core.schedule import Schedule

TRACKER = "latest_checkpointed_iteration.txt"
STATE = "pair.json"
DATA = "data.pt"
BEST = "best.json"
_STEP = "global_step_{}"


@dataclass(frozen=True, kw_only=True)
class PairState:
    """What a resumed run must agree with. Fields with a default are unknown in files of earlier versions."""

    step: int
    schedule: list[str]
    steps_per_round: int
    plan: Mapping[str, int] = field(default_factory=dict)
    """Where the ramps of the reward and the learning rates end, by configuration key."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What the run trains and validates on, by split."""
    policies: Mapping[str, Any] = field(default_factory=dict)
    """What each policy began with, by its name."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """Limits of a trajectory and the system prompts. A resumed run may have others; nothing compares them."""
    best: Mapping[str, Any] | None = None
    """`best.json` when the checkpoint was written."""
    files: Mapping[str, int] | None = None
    """Size of every other file of the checkpoint, by path below the root."""

    @classmethod
    def read(cls, file: Path) -> "PairState":
        """Raises OSError, ValueError or TypeError for a file that is no state."""
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"{file} holds no state")
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in content.items() if name in known})


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Accuracy (0 … 1) and mean tokens of the pair on the validation split after `step` steps."""

    step: int
    accuracy: float
    tokens: float
    accuracy_interval: tuple[float, float] | None = None
    """95 %, over problems; None where one problem is all there is."""
    tokens_interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """The checkpoint that a run goes on from."""

    step: int | None
    """None: there is no checkpoint."""
    notes: tuple[str, ...] = ()
    """Why it is not the one that was written last, a line each."""


class CheckpointStore:
    """The folder of a run's checkpoints."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()

    def pair_folder(self, step: int) -> Path:
        """The folder of the pair's own state."""
        return self.root / _STEP.format(step)

    def policy_folder(self, name: str, step: int) -> Path:
        """The folder that verl writes for a policy."""
        return self.root / name / _STEP.format(step)

    def steps(self) -> list[int]:
        """The steps of all checkpoints that were ever declared complete and not deleted, in order."""
        return sorted(
            int(file.parent.name.rsplit("_", 1)[1])
            for file in self.root.glob(f"{_STEP.format('*')}/{STATE}")
            if file.parent.name.rsplit("_", 1)[1].isdigit()
        )

    def latest(self) -> int | None:
        """The step of the last whole checkpoint, or None for a fresh run. Raises UserError as `find` does."""
        return self.find().step

    def find(self) -> Found:
        """The checkpoint that the tracker names, or the newest whole one before it.

        Raises:
            UserError: there are checkpoints and none is whole.
        """
        tracked, wrong = self._tracked()
        steps = self.steps()
        if tracked is None and not steps:
            if wrong == "is missing":
                return Found(step=None)
            raise UserError(str(self.root / TRACKER), "", f"{wrong}, and there is no checkpoint: remove it")
        before = [step for step in steps if tracked is None or step < tracked]
        lines = [] if tracked is not None else [f"{self.root / TRACKER} {wrong}"]
        reason = ""
        for step in reversed([*before, *([] if tracked is None else [tracked])]):
            defect = self.defect(step)
            if defect is None:
                notes = [*lines, f"going on from step {step}, the newest whole checkpoint"] if lines else []
                return Found(step=step, notes=tuple(notes))
            reason = reason or defect
            lines.append(f"the checkpoint of step {step} is not whole: {defect}")
        remedy = (
            f"its folder is gone or incomplete ({reason}), and no earlier checkpoint is whole: restore the file, or "
            "train in a new folder (trainer.default_local_dir)"
        )
        raise UserError(str(self.root / TRACKER), steps[-1] if tracked is None else tracked, remedy)

    def defect(self, step: int) -> str | None:
        """What a checkpoint lacks, None for a whole one. Sizes are compared, contents are not read."""
        file = self.pair_folder(step) / STATE
        try:
            state = PairState.read(file)
        except OSError:
            return f"{file} is missing"
        except (ValueError, TypeError):
            return f"{file} is unreadable"
        if state.files is None:
            return self._defect_without_sizes(step)
        for name, size in state.files.items():
            path = self.root / name
            if not path.is_file():
                return f"{path} is missing"
            if path.stat().st_size != size:
                return f"{path} has {path.stat().st_size} of {size} bytes"
        return None

    def load(self, step: int, schedule: Schedule) -> PairState:
        """Read a checkpoint's state. Raises UserError when the part of the schedule that has begun was another."""
        state = PairState.read(self.pair_folder(step) / STATE)
        if not schedule.agrees_with(state.schedule, state.steps_per_round, state.step):
            was = f"{state.schedule} with {state.steps_per_round} steps each"
            remedy = f"step {step} was reached under {was}; keep what has begun, or use a new folder"
            raise UserError("longshort.schedule", [r.value for r in schedule.rounds], remedy)
        return state

    def commit(self, state: PairState) -> None:
        """Declare the checkpoint of `state.step` complete; call when everything else is written.

        All of its files are on the disk before the tracker names it, also if the machine loses power.
        """
        paths = list(self._files(state.step))
        folders = {above for path in paths for above in path.parents if above.is_relative_to(self.root)}
        for written in (*paths, *folders):
            sync_to_disk(written)
        sizes = {path.relative_to(self.root).as_posix(): path.stat().st_size for path in paths}
        content = {**asdict(state), "files": sizes, "best": self.read_best()}
        write_text(self.pair_folder(state.step) / STATE, json.dumps(content), durable=True)
        write_text(self.root / TRACKER, str(state.step), durable=True)

    def exists(self, step: int) -> bool:
        """Whether a complete checkpoint of `step` is there."""
        return (self.pair_folder(step) / STATE).exists()

    def share(self, name: str, step: int, *, written: int) -> None:
        """Let the checkpoint of `step` have the policy's files of the checkpoint of `written`.

        Raises OSError where the file system has no hard links; nothing is left behind.
        """
        target = self.policy_folder(name, step)
        try:
            shutil.copytree(self.policy_folder(name, written), target, copy_function=os.link)
        except OSError as error:
            shutil.rmtree(target, ignore_errors=True)
            raise OSError(str(error)) from error

    def discard(self, step: int) -> None:
        """Delete a checkpoint, or what was written of one."""
        # the pair's own folder first: without it the rest is no checkpoint
        for folder in (self.pair_folder(step), *(self.policy_folder(name, step) for name in POLICIES)):
            shutil.rmtree(folder, ignore_errors=not folder.exists())

    def prune(self, keep: int, *, spare: Collection[int] = ()) -> None:
        """Delete all but the last `keep` checkpoints; the best one stays, and those of the steps `spare`.

        What lies beyond the tracker's step was passed over because it is not whole, and goes too.
        """
        tracked, _ = self._tracked()
        best = self.read_best()
        kept = {*spare, *([] if best is None else [best["best"]["step"]])}
        steps = self.steps()
        kept.update([step for step in steps if tracked is None or step <= tracked][-keep:])
        for step in steps:
            if step not in kept and step != tracked:
                self.discard(step)

    def read_best(self) -> dict[str, Any] | None:
        """`{"start": …, "best": …}` as written by `write_best`, or None.

        Raises UserError for a file that is none; a resumed run writes it again (`restore_best`).
        """
        path = self.root / BEST
        try:
            best: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return best if best["best"]["step"] >= 0 else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            remedy = "is unreadable; resuming the run writes it again from its last checkpoint, or remove it"
            raise UserError(str(path), type(error).__name__, remedy) from error

    def best_defect(self, step: int) -> str | None:
        """Why `best.json` cannot be kept by a run that goes on from `step`; None when it can, or there is none."""
        try:
            best = self.read_best()
        except UserError:
            return f"{self.root / BEST} is unreadable"
        chosen = 0 if best is None else best["best"]["step"]
        if chosen > step:
            return f"{self.root / BEST} names step {chosen}, which the run has yet to reach again"
        if chosen and not self.exists(chosen):
            return f"{self.root / BEST} names step {chosen}, whose checkpoint is gone"
        return None

    def restore_best(self, state: PairState) -> None:
        """Write `best.json` as it was when `state` was saved; remove it where there was none."""
        if state.best is None:
            (self.root / BEST).unlink(missing_ok=True)
        else:
            write_text(self.root / BEST, json.dumps(state.best, indent=1), durable=True)

    def first_validation(self, state: PairState) -> Validation | None:
        """The validation before the first step of the run that saved `state`; None where there was none."""
        try:
            best = self.read_best()
        except UserError:
            best = dict(state.best) if state.best else None
        return Validation(**best["start"]) if best and best["start"] else None

    def write_best(self, start: Validation | None, best: Validation, models: Mapping[Role, str], **more: Any) -> None:
        """Record the best validated checkpoint, the Hugging Face model of each role, and what it is compared with.

        `start` is None for a run that did not validate before its first step. `more` is recorded with it.
        """
        named = {role.value: model for role, model in models.items()}
        begun = None if start is None else asdict(start)
        record = {"start": begun, "best": asdict(best), "models": named, **more}
        write_text(self.root / BEST, json.dumps(record, indent=1), durable=True)

    def _tracked(self) -> tuple[int | None, str]:
        """The step in the tracker file, or None and what is wrong with the file."""
        try:
            text = (self.root / TRACKER).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None, "is missing"
        except UnicodeDecodeError:
            return None, "names no step"
        if not text:
            return None, "is empty"
        return (int(text), "") if text.isdigit() else (None, "names no step")

    def _files(self, step: int) -> Iterator[Path]:
        """All files of a checkpoint but its state."""
        for folder in (self.pair_folder(step), *(self.policy_folder(name, step) for name in POLICIES)):
            yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != STATE)

    def _defect_without_sizes(self, step: int) -> str | None:
        """Of a checkpoint of an earlier version: torch's files end in a directory, which a truncated one lacks."""
        data = self.pair_folder(step) / DATA
        if not data.is_file():
            return f"{data} is missing"
        for path in self._files(step):
            if path.suffix == ".pt" and not zipfile.is_zipfile(path):
                return f"{path} is truncated"
        for policy in POLICIES:
            shards = {path.name for path in self.policy_folder(policy, step).glob("actor/*_world_size_*_rank_*.pt")}
            for name in sorted(shards):
                kind, _, rest = name.partition("_world_size_")
                world = int(rest.partition("_")[0])
                lacking = {f"{kind}_world_size_{world}_rank_{rank}.pt" for rank in range(world)} - shards
                if lacking:
                    return f"{self.policy_folder(policy, step) / 'actor' / min(lacking)} is missing"
        return None
