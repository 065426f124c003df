"""Trajectories that were sampled in training, as a run leaves them beside its checkpoints, one file per step:

    {root}/trajectories/step_12.jsonl

A step that is done again, after a resume, replaces its file.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from verl_longshort.base.files import write_jsonl

FOLDER = "trajectories"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SampledTurn(_Part):
    """One turn; `tokens` were generated. `fault` says how it broke the protocol, None: not."""

    role: str
    text: str
    tokens: int
    fault: str | None


class SampledReward(_Part):
    """What one role got for a trajectory."""

    total: float
    """The reward that was learned from."""
    terms: Mapping[str, float]
    """The terms by name, before their weights."""
    neutral: bool
    """The trajectory teaches this role nothing."""
    advantage: float | None
    """Mean over the role's own tokens; None where it did not learn in the step."""


class SampledTrajectory(_Part):
    """One trajectory of one step."""

    step: int
    round: str
    """In the paper's notation: `L2` is the long policy's second. Empty for a single model."""
    problem_id: str
    """The same for the same problem in every step; see `problem_id`."""
    problem: str
    ground_truth: str
    group: int
    """Which group of the step's logged ones, from 0."""
    session: int
    """Which trajectory of its group, from 0."""
    turns: Sequence[SampledTurn]
    tokens: Mapping[str, int]
    """Generated tokens by role."""
    correct: bool
    stop_reason: str
    fault_role: str | None
    rethinks: int
    weights: Mapping[str, float]
    """Of the terms in this step, by name."""
    rewards: Mapping[str, SampledReward]
    """By role."""


def problem_id(problem: str) -> str:
    """A short name of a problem, from its text."""
    return hashlib.sha256(problem.encode()).hexdigest()[:12]


def chosen_groups(problems: Mapping[str, str], count: int | None) -> list[str]:
    """The groups to log of a step: those of the problems whose names come first, so that where data repeats, the same
    problems are logged again. `problems` is group -> problem; None: all groups.
    """
    return sorted(problems, key=lambda group: problem_id(problems[group]))[:count]


def write_step(root: Path, step: int, trajectories: Sequence[SampledTrajectory]) -> Path:
    """Write the file of a step, in one go."""
    file = root / FOLDER / f"step_{step}.jsonl"
    write_jsonl(file, [one.model_dump() for one in trajectories])
    return file


def read_steps(root: Path) -> Iterator[SampledTrajectory]:
    """All that a run has left below `root`, by step. Raises pydantic's ValidationError for a line that is none."""
    for file in sorted((root / FOLDER).glob("step_*.jsonl"), key=lambda file: int(file.stem.removeprefix("step_"))):
        with file.open(encoding="utf-8") as lines:
            yield from map(SampledTrajectory.model_validate_json, lines)
