"""The stage `prepare problems`: problems with a known answer as verl's rows, for training and validation.

Settings: `config/prepare_problems.yaml`; files: `docs/data.md`. No problem is in two of training, validation
and what is held out. Everything is a function of the sources and the settings.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.files import Record, write_jsonl, write_parquet
from verl_longshort.base.progress import report
from verl_longshort.base.rejected import Rejected, RejectedError
from verl_longshort.data.card import Card
from verl_longshort.data.prepare_settings import TrainingProblemSettings
from verl_longshort.data.summary_table import summary_table
from verl_longshort.problems.held_out import hold_out, random_rank, refuse_known, training_problem
from verl_longshort.problems.overlap import KnownProblems
from verl_longshort.problems.reader import Problem
from verl_longshort.problems.sources import Source, load_source

_REPORT_EVERY = 500


def prepare_problems(settings: TrainingProblemSettings, console: Console) -> None:
    """Write the rows. Raises UserError when a source cannot be used, and when too few problems are left."""
    known, held_out = hold_out(settings.held_out, settings.similarity, settings.benchmark_dir)
    problems, dropped, read = _read(settings, known)
    val, rest = _split(problems, settings)
    train, alike = _apart(rest, val, settings.similarity)
    dropped += alike
    if not train or len(val) < settings.val_problems:
        remedy = f"must leave problems to train on; {len(problems)} of {read} can be used"
        raise UserError("longshort.val_problems", settings.val_problems, remedy)
    folder = settings.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    _write_rows(folder / "train.parquet", train, settings.data_source, "train")
    _write_rows(folder / "val.parquet", val, settings.data_source, "val")
    write_jsonl(folder / "dropped.jsonl", [record.to_record() for record in dropped])
    counts = {"read": read, "train": len(train), "val": len(val), "held out": held_out}
    card = Card(title="Problems for RL", counts=counts, dropped=dropped, made_with=vars(settings))
    card.write(folder)
    console.print(summary_table("problems", card.rows()))


def _read(settings: TrainingProblemSettings, known: KnownProblems) -> tuple[list[Problem], list[Rejected], int]:
    too_long = _length_check(settings)
    taken = KnownProblems(settings.similarity)
    problems: list[Problem] = []
    dropped: list[Rejected] = []
    rows = _rows(settings)
    for done, (source, index) in enumerate(rows, start=1):
        try:
            problem = training_problem(source, index, key="longshort.source")
            refuse_known(problem.text, known, "held out")
            _refuse_twice(problem, taken)
            too_long(problem)
            problems.append(problem)
        except RejectedError as error:
            record = Rejected(id=f"{source.name}#{index + 1}", reason=error.reason, detail=error.detail)
            dropped.append(record)
        if done % _REPORT_EVERY == 0 or done == len(rows):
            report(done, len(rows), f"{done}/{len(rows)} problems read")
    return problems, dropped, len(rows)


def _rows(settings: TrainingProblemSettings) -> list[tuple[Source, int]]:
    sources = [load_source(name, key="longshort.source") for name in settings.source]
    return [(source, index) for source in sources for index in range(len(source.rows))][: settings.limit]


def _refuse_twice(problem: Problem, taken: KnownProblems) -> None:
    # What is nearly the same may be trained on twice; from validation it is kept apart later.
    same = taken.same(problem.text)
    if same is not None:
        raise RejectedError("twice in the source", same)
    taken.add(problem.text, problem.id)


def _length_check(settings: TrainingProblemSettings) -> Callable[[Problem], None]:
    if settings.tokenizer is None:
        return lambda problem: None
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(settings.tokenizer)

    def check(problem: Problem) -> None:
        tokens = len(tokenizer.encode(problem.text, add_special_tokens=False))
        if tokens > settings.max_problem_tokens:
            raise RejectedError("too long", f"{tokens} tokens, at most {settings.max_problem_tokens}")

    return check


def _split(problems: Sequence[Problem], settings: TrainingProblemSettings) -> tuple[list[Problem], list[Problem]]:
    """Validation, and the rest in its order. A hash decides, not the place in the source."""
    ranked = sorted(problems, key=lambda problem: random_rank(problem.text, settings.seed))
    chosen = {problem.id for problem in ranked[: settings.val_problems]}
    return (
        [problem for problem in problems if problem.id in chosen],
        [problem for problem in problems if problem.id not in chosen],
    )


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
            dropped.append(Rejected(id=problem.id, reason=error.reason, detail=error.detail))
    return kept, dropped


def _write_rows(path: Path, problems: Sequence[Problem], data_source: str, split: str) -> None:
    rows = [_row(problem, index, data_source, split) for index, problem in enumerate(problems)]
    write_parquet(path, rows)


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
