"""What a run has left in its folder, read once; what is not there (yet) is said, not guessed."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from longshort_reward.errors import UserError

from verl_longshort.base.checkpoint import TRACKER, CheckpointStore, Validation
from verl_longshort.base.marker import DONE, Marker, read_marker
from verl_longshort.base.progress import VARIABLE
from verl_longshort.base.run_record import RunRecord, read_record
from verl_longshort.core.schedule import Schedule
from verl_longshort.evaluation.metrics import Interval
from verl_longshort.report.evaluations import Evaluation, choose_bases, find_evaluations
from verl_longshort.report.training_log import TrainingLog, read_training_log


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The checkpoint that validation chose (`best.json`)."""

    start: Validation
    best: Validation
    label: str | None
    """The pair in the paper's notation, None when the schedule is not known."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run. Everything may be missing but the folder."""

    root: Path
    label: str
    """Short and its own among the runs of the report: the seed where known, else the folder's name."""
    evaluations: Sequence[Evaluation]
    bases: Mapping[str, Evaluation]
    """The evaluation that AES is relative to, by data set."""
    log: TrainingLog | None
    controls: Mapping[str, TrainingLog]
    """Training of single models, by the name of their folder."""
    schedule: Schedule | None
    step: int | None
    """Of the last complete checkpoint."""
    choice: Choice | None
    record: RunRecord | None
    stages: Mapping[str, Marker | None]
    """The recipe's stages in order; None: not begun."""
    weighed: Sequence[Path]
    """Files of weighed chains."""

    @cached_property
    def scores(self) -> Mapping[Path, Interval | None]:
        """AES of each evaluation, by its file."""
        return {one.file: one.score(self.bases.get(one.data)) for one in self.evaluations}

    @property
    def date(self) -> datetime:
        """Start of the run where recorded, else the time of what it wrote last."""
        if self.record is not None:
            return datetime.fromisoformat(self.record.started)
        known = [one.file for one in self.evaluations] or [self.root]
        return datetime.fromtimestamp(max(file.stat().st_mtime for file in known), timezone.utc)

    @property
    def missing(self) -> list[str]:
        """What a finished run has and this one has not, for the reader."""
        lacks = []
        if not self.evaluations:
            lacks.append("no evaluation (longshort eval)")
        lacks += [
            f"{one.name}: {len(one.records)} of {one.expected} answers, the evaluation is not finished"
            for one in self.evaluations
            if not one.is_complete
        ]
        if self.log is None:
            lacks.append("no training metrics (longshort train)")
        elif self.schedule and self.step is not None and self.step < self.schedule.total_steps:
            lacks.append(f"training: {self.step} of {self.schedule.total_steps} steps")
        begun = {name: marker for name, marker in self.stages.items() if marker is not None}
        lacks += [f"stage {name} is not done" for name, marker in begun.items() if marker.status != DONE]
        waiting = [name for name in self.stages if name not in begun]
        return lacks + ([f"stages not begun: {', '.join(waiting)}"] if waiting else [])


def read_runs(folders: Sequence[Path], base: str | None) -> list[Run]:
    """The runs in `folders`. Raises UserError when one is no run, or has no evaluation named `base`."""
    return [_read_run(folder, label, base) for folder, label in zip(folders, _labels(folders), strict=True)]


def _read_run(root: Path, label: str, base: str | None) -> Run:
    evaluations = find_evaluations(root)
    bases = choose_bases(evaluations, base)
    if base is not None and evaluations and not bases:
        names = ", ".join(one.name for one in evaluations)
        raise UserError("--base", base, f"is none of the evaluations in {root}: {names}")
    pair = _pair_folder(root)
    schedule, step = _progress(pair)
    record = read_record(root)
    run = Run(
        root=root,
        label=label,
        evaluations=evaluations,
        bases=bases,
        log=read_training_log(pair),
        controls=_controls(root, pair),
        schedule=schedule,
        step=step,
        choice=_choice(pair, schedule),
        record=record,
        stages=_stages(root, record),
        weighed=sorted(root.rglob("weighed.jsonl")),
    )
    if not (evaluations or run.log or run.record or run.stages or run.choice):
        raise UserError("RUN_DIR", root, "is no run: give a recipe's output folder")
    return run


def _labels(folders: Sequence[Path]) -> list[str]:
    for folder in folders:
        if not folder.is_dir():
            raise UserError("RUN_DIR", folder, "no such folder: give a recipe's output folder")
    records = [read_record(folder) for folder in folders]
    known = [record.settings.get("seed") if record else None for record in records]
    seeds = ["" if seed is None else f"seed {seed}" for seed in known]
    names = [folder.resolve().name for folder in folders]
    for labels in (seeds, names):
        if all(labels) and len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]


def _pair_folder(root: Path) -> Path:
    for name in ("pair", "."):
        if (root / name / TRACKER).exists() or list((root / name).glob("metrics.*.jsonl")):
            return root / name
    return root / "pair"


def _controls(root: Path, pair: Path) -> dict[str, TrainingLog]:
    folders = sorted({file.parent for file in root.rglob("metrics.*.jsonl")} - {pair})
    logs = {folder.name: read_training_log(folder) for folder in folders}
    return {name: log for name, log in logs.items() if log is not None}


def _progress(pair: Path) -> tuple[Schedule | None, int | None]:
    step = CheckpointStore(pair).latest()
    if step is None:
        return None, None
    state = _json(CheckpointStore(pair).pair_folder(step) / "pair.json")
    return Schedule.parse(state["schedule"], state["steps_per_round"]), step


def _choice(pair: Path, schedule: Schedule | None) -> Choice | None:
    best = CheckpointStore(pair).read_best()
    if best is None:
        return None
    chosen = Validation(**best["best"])
    label = schedule.label(chosen.step) if schedule else None
    return Choice(start=Validation(**best["start"]), best=chosen, label=label)


def _stages(root: Path, record: RunRecord | None) -> dict[str, Marker | None]:
    files = sorted((root / "stages").glob("*.json"), key=lambda file: file.stat().st_mtime)
    markers = {file.stem: read_marker(file) for file in files}
    names = dict.fromkeys([*(record.stages if record else ()), *markers])
    # The stage that makes this very report is not done before the report is.
    own = Path(os.environ[VARIABLE]).stem if VARIABLE in os.environ else None
    return {name: markers.get(name) for name in names if name != own}


def _json(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content
