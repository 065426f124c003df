"""The stage `prepare problems`: problems with a known answer as verl's rows, for training and validation.

Settings: `config/prepare_problems.yaml`; files: `docs/data.md`. No problem is in two of training, validation
and what is held out. Everything is a function of the sources and the settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.files import Record, write_jsonl, write_parquet
from verl_longshort.base.progress import report
from verl_longshort.base.rejected import Rejected, RejectedError
from verl_longshort.data.card import Card, summary_table
from verl_longshort.data.prepare_settings import TrainingProblemSettings
from verl_longshort.problems.held_out import hold_out, random_rank, refuse_known, training_problem
from verl_longshort.problems.overlap import KnownProblems
from verl_longshort.problems.reader import Problem
from verl_longshort.problems.sources import load_source

_REPORT_EVERY = 500


@dataclass(frozen=True, kw_only=True)
class Split:
    """Problems for training and validation."""

    train: list[Problem]
    val: list[Problem]
    dropped: list[Rejected]
    read: int
    """Rows of the sources."""
    held_out: int


def split_problems(settings: TrainingProblemSettings) -> Split:
    """Read and divide them; writes nothing. Raises UserError as `prepare_problems`."""
    known, held_out = hold_out(settings.held_out, settings.similarity, settings.benchmark_dir)
    problems, dropped, read = _read(settings, known)
    # A hash decides what is for validation, not the place in the source.
    ranked = sorted(problems, key=lambda problem: random_rank(problem.text, settings.seed))
    chosen = {problem.id for problem in ranked[: settings.val_problems]}
    val = [problem for problem in problems if problem.id in chosen]
    rest = [problem for problem in problems if problem.id not in chosen]
    train, alike = _apart(rest, val, settings.similarity)
    dropped += alike
    if not train or len(val) < settings.val_problems:
        remedy = f"must leave problems to train on; {len(problems)} of {read} can be used{_first(dropped)}"
        raise UserError("longshort.val_problems", settings.val_problems, remedy)
    return Split(train=train, val=val, dropped=dropped, read=read, held_out=held_out)


def prepare_problems(settings: TrainingProblemSettings, console: Console) -> None:
    """Write the rows. Raises UserError when a source cannot be used, and when too few problems are left."""
    split = split_problems(settings)
    folder = settings.output_dir
    for name, part in (("train", split.train), ("val", split.val)):
        rows = [_row(problem, index, settings.data_source, name) for index, problem in enumerate(part)]
        write_parquet(folder / f"{name}.parquet", rows)
    write_jsonl(folder / "dropped.jsonl", [record.to_record() for record in split.dropped])
    counts = {"read": split.read, "train": len(split.train), "val": len(split.val), "held out": split.held_out}
    card = Card(title="Problems for RL", counts=counts, dropped=split.dropped, made_with=vars(settings))
    card.write(folder)
    console.print(summary_table("problems", card.rows()))


def _read(settings: TrainingProblemSettings, known: KnownProblems) -> tuple[list[Problem], list[Rejected], int]:
    tokenizer = None
    if settings.tokenizer is not None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(settings.tokenizer)
    taken = KnownProblems(settings.similarity)
    problems: list[Problem] = []
    dropped: list[Rejected] = []
    sources = [load_source(name, key="longshort.source") for name in settings.source]
    rows = [(source, index) for source in sources for index in range(len(source.rows))][: settings.limit]
    for done, (source, index) in enumerate(rows, start=1):
        try:
            problem = training_problem(source, index)
            refuse_known(problem.text, known, "held out")
            # What is nearly the same may be trained on twice; from validation it is kept apart later.
            if (same := taken.same(problem.text)) is not None:
                raise RejectedError("twice in the source", same)
            taken.add(problem.text, problem.id)
            tokens = 0 if tokenizer is None else len(tokenizer.encode(problem.text, add_special_tokens=False))
            if tokens > settings.max_problem_tokens:
                raise RejectedError("too long", f"{tokens} tokens, at most {settings.max_problem_tokens}")
            problems.append(problem)
        except RejectedError as error:
            dropped.append(Rejected.by(error, f"{source.name}#{index + 1}"))
        if done % _REPORT_EVERY == 0 or done == len(rows):
            report(done, len(rows), f"{done}/{len(rows)} problems read")
    return problems, dropped, len(rows)


def _apart(
    problems: Sequence[Problem], val: Sequence[Problem], similarity: float
) -> tuple[list[Problem], list[Rejected]]:
    known = KnownProblems(similarity)
    for problem in val:
        known.add(problem.text, problem.id)
    kept, dropped = [], []
    for problem in problems:
        try:
            refuse_known(problem.text, known, "in validation")
            kept.append(problem)
        except RejectedError as error:
            dropped.append(Rejected.by(error, problem.id))
    return kept, dropped


def _first(dropped: Sequence[Rejected]) -> str:
    if not dropped:
        return ""
    source, _, number = dropped[0].id.rpartition("#")
    return f"; the first one dropped, {source}, record {number}: {dropped[0].reason}, {dropped[0].detail}"


def _row(problem: Problem, index: int, data_source: str, split: str) -> Record:
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": problem.text}],
        "reward_model": {"style": "rule", "ground_truth": problem.ground_truth},
        "extra_info": {
            "index": index,
            "split": split,
            "id": problem.id,
            "subject": problem.subject,
            "level": problem.level,
        },
    }
