"""What a run has left in its folder, read once; what is not there (yet) is said, not guessed."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

from longshort_reward.errors import UserError

from verl_longshort.base.checkpoint import TRACKER, CheckpointStore, Validation
from verl_longshort.base.metrics_files import metrics_files
from verl_longshort.base.progress import VARIABLE
from verl_longshort.base.run_record import DONE, Marker, RunRecord, read_marker, read_record
from verl_longshort.core.schedule import Schedule
from verl_longshort.data.training_trajectories import FOLDER as TRAJECTORIES
from verl_longshort.evaluation.metrics import Interval
from verl_longshort.report.evaluations import Evaluation, choose_bases, find_evaluations
from verl_longshort.report.training_log import TrainingLog, read_training_log


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The checkpoint that validation chose (`best.json`)."""

    start: Validation | None
    """None: the run did not validate before its first step."""
    best: Validation
    label: str | None
    """The pair in the paper's notation, None when the schedule is not known."""
    rival: int | None = None
    """The step of a pair that the choice cannot be told from."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run. Everything may be missing but the folder."""

    root: Path
    label: str
    """Short and unique among the runs of the report: the seed where known, else the folder's name."""
    evaluations: Sequence[Evaluation]
    bases: Mapping[str, Evaluation]
    """The evaluation that AES is relative to, by data set."""
    log: TrainingLog | None
    controls: Mapping[str, TrainingLog]
    """Training of single models, by the name of their folder."""
    sampled: Mapping[str, Path]
    """Folders that hold trajectories of training: the pair's under "", those of single models under their names."""
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
        lacks = [] if self.evaluations else ["no evaluation (longshort eval)"]
        lacks += [
            f"{one.name}: {len(one.records)} of {one.expected} answers, the evaluation is not finished"
            for one in self.evaluations
            if not one.is_complete
        ]
        if self.log is None:
            lacks.append("no training metrics (longshort train)")
        elif self.schedule and self.step is not None and self.step < self.schedule.total_steps:
            lacks.append(f"training: {self.step} of {self.schedule.total_steps} steps")
        lacks += [
            f"stage {name} is not done" for name, marker in self.stages.items() if marker and marker.status != DONE
        ]
        waiting = [name for name, marker in self.stages.items() if marker is None]
        return lacks + ([f"stages not begun: {', '.join(waiting)}"] if waiting else [])


def read_runs(folders: Sequence[Path], base: str | None) -> list[Run]:
    """The runs in `folders`. Raises UserError when one is no run, or has no evaluation named `base`."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError("RUN_DIR", folder, "no such folder: give a recipe's output folder")
    records = [read_record(folder) for folder in folders]
    labels = _labels(folders, records)
    return [_read_run(*one, base) for one in zip(folders, labels, records, strict=True)]


def _read_run(root: Path, label: str, record: RunRecord | None, base: str | None) -> Run:
    evaluations = find_evaluations(root)
    bases = choose_bases(evaluations, base)
    if base is not None and evaluations and not bases:
        names = ", ".join(one.name for one in evaluations)
        raise UserError("--base", base, f"is none of the evaluations in {root}: {names}")
    pair = _pair_folder(root)
    others = sorted({file.parent for file in root.rglob("metrics.*.jsonl")} - {pair})
    store = CheckpointStore(pair)
    # what it says of training needs no weights, so a damaged checkpoint will do
    step, schedule = max(store.steps(), default=None), None
    if step is not None:
        state = json.loads((store.pair_folder(step) / "pair.json").read_text(encoding="utf-8"))
        schedule = Schedule.parse(state["schedule"], state["steps_per_round"])
    run = Run(
        root=root,
        label=label,
        evaluations=evaluations,
        bases=bases,
        log=read_training_log(pair),
        controls={folder.name: log for folder in others if (log := read_training_log(folder))},
        sampled=_sampled(root, pair),
        schedule=schedule,
        step=step,
        choice=_choice(store, schedule),
        record=record,
        stages=_stages(root, record),
        weighed=sorted(root.rglob("weighed.jsonl")),
    )
    if not (evaluations or run.log or run.record or run.stages or run.choice):
        raise UserError("RUN_DIR", root, "is no run: give a recipe's output folder")
    return run


def _labels(folders: Sequence[Path], records: Sequence[RunRecord | None]) -> list[str]:
    seeds = [record.settings.get("seed") if record else None for record in records]
    by_seed = ["" if seed is None else f"seed {seed}" for seed in seeds]
    by_name = [folder.resolve().name for folder in folders]
    for labels in (by_seed, by_name):
        if all(labels) and len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]


def _pair_folder(root: Path) -> Path:
    for folder in (root / "pair", root):
        if (folder / TRACKER).exists() or metrics_files(folder):
            return folder
    return root / "pair"


def _sampled(root: Path, pair: Path) -> dict[str, Path]:
    folders = sorted({file.parent.parent for file in root.rglob(f"{TRAJECTORIES}/step_*.jsonl")})
    folders.sort(key=lambda folder: folder != pair)
    return {"" if folder == pair else folder.name: folder for folder in folders}


def _choice(store: CheckpointStore, schedule: Schedule | None) -> Choice | None:
    best = store.read_best()
    if best is None:
        return None
    chosen = Validation(**best["best"])
    label = schedule.label(chosen.step) if schedule else None
    start = Validation(**best["start"]) if best["start"] else None
    rival = best.get("rival") or {}
    noise = rival["step"] if rival.get("within_noise") else None
    return Choice(start=start, best=chosen, label=label, rival=noise)


def _stages(root: Path, record: RunRecord | None) -> dict[str, Marker | None]:
    files = sorted((root / "stages").glob("*.json"), key=lambda file: file.stat().st_mtime)
    markers = {file.stem: read_marker(file) for file in files}
    names = dict.fromkeys([*(record.stages if record else ()), *markers])
    # The stage that makes this very report is not done before the report is.
    own = Path(os.environ[VARIABLE]).stem if VARIABLE in os.environ else None
    return {name: markers.get(name) for name in names if name != own}
