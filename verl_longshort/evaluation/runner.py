"""Evaluates a pair or a single model: every trajectory to a file, then a summary.

`evaluate(overrides)` is the command. It can be killed at any moment and started again: what is in the file
is not done again, and each answer's draws depend on its seed alone, so the result is the same.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from longshort_reward.protocol import ROLES

from verl_longshort import __version__
from verl_longshort.base.concurrency import run_bounded
from verl_longshort.base.files import Record
from verl_longshort.base.journal import RecordFile
from verl_longshort.base.progress import report
from verl_longshort.core.trajectory import Participant
from verl_longshort.engines.factory import open_engine
from verl_longshort.evaluation.aha import MARKERS
from verl_longshort.evaluation.early_stop import EarlyStopSolver
from verl_longshort.evaluation.endpoints import open_solver as open_endpoints
from verl_longshort.evaluation.settings import EvaluationSettings, Mode
from verl_longshort.evaluation.solvers import PairSolver, SingleSolver, Solver
from verl_longshort.evaluation.summary import Summary, summarise, write_summary
from verl_longshort.problems.benchmarks import Benchmark
from verl_longshort.problems.schemas import Problem


def evaluate(settings: EvaluationSettings) -> Summary:
    """Answer and grade; write records and summary.

    Raises UserError before a model is loaded when the problems cannot be used.
    """
    benchmarks = settings.problems.load()
    header = {**settings.header(), **_origin(benchmarks)}
    with RecordFile(settings.records_file, header, notes=_notes(settings)) as file:
        problems = [problem for benchmark in benchmarks for problem in benchmark.problems]
        tasks = [task for task in _tasks(settings, problems) if task.id not in file.done]
        if tasks:
            _work(settings, tasks, file)
        summary = summarise(settings.name, file.records, timeout_s=settings.answer_timeout_s)
    write_summary(settings.summary_file, summary)
    return summary


def _origin(benchmarks: Sequence[Benchmark]) -> dict[str, Any]:
    return {
        "data": "+".join(benchmark.name for benchmark in benchmarks),
        "problems": sum(len(benchmark.problems) for benchmark in benchmarks),
        "benchmarks": [dict(benchmark.origin) for benchmark in benchmarks],
    }


def _notes(settings: EvaluationSettings) -> dict[str, Any]:
    """What is worth knowing about a run and does not decide its result."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "version": __version__,
        "max_num_seqs": settings.max_num_seqs,
        "aha_markers": list(MARKERS),
    }


@dataclass(frozen=True, kw_only=True)
class Task:
    """One answer to one problem."""

    id: str
    problem: Problem
    seed: int


def _tasks(settings: EvaluationSettings, problems: Sequence[Problem]) -> Iterator[Task]:
    # Sample by sample, so that an interrupted run has seen all problems.
    for sample in range(settings.samples):
        for problem in problems:
            name = f"{problem.benchmark}/{problem.index}/{sample}"
            digest = hashlib.sha256(f"{settings.seed}/{name}".encode()).digest()
            yield Task(id=name, problem=problem, seed=int.from_bytes(digest[:7], "big"))


def _work(settings: EvaluationSettings, tasks: Sequence[Task], file: RecordFile) -> None:
    total = len(file.records) + len(tasks)

    def keep(record: Record) -> None:
        file.append(record)
        right = sum(done["correct"] for done in file.records)
        count = len(file.records)
        report(count, total, f"{count}/{total} answers, {right / count:.1%} right")

    async def solve(open_solver: Callable[[AsyncExitStack], Solver]) -> None:
        async with AsyncExitStack() as connections:
            solver = open_solver(connections)
            await run_bounded(
                tasks,
                lambda task: _answer(task, solver, settings.answer_timeout_s),
                keep,
                # Both engines of a pair are kept busy while the other one speaks.
                limit=settings.max_num_seqs * len(settings.mode.speakers),
                timeout_s=settings.rollout_timeout_s,
            )

    if settings.endpoint.base_urls:
        asyncio.run(solve(lambda connections: open_endpoints(settings, connections)))
        return
    with ExitStack() as engines:
        solver = _solver(settings, engines)
        asyncio.run(solve(lambda _: solver))


async def _answer(task: Task, solver: Solver, timeout_s: float) -> Record:
    from verl_longshort.evaluation.grading import grade

    started = time.monotonic()
    answer = await solver(task.problem.text, seed=task.seed)
    seconds = time.monotonic() - started
    grading = await asyncio.to_thread(grade, task.problem, answer["text"], timeout_s=timeout_s)
    known = {
        "id": task.id,
        "benchmark": task.problem.benchmark,
        "problem_index": task.problem.index,
        "ground_truth": task.problem.ground_truth,
        "extra_info": dict(task.problem.extra),
    }
    judged = {"answer": grading.answer, "correct": grading.correct, "seconds": round(seconds, 3)}
    return {**known, **answer, **judged}


def _solver(settings: EvaluationSettings, engines: ExitStack) -> Solver:
    def load(speaker: str) -> tuple[Any, Any]:
        tokenizer, engine = open_engine(
            settings.models[speaker],
            settings.engine,
            max_num_seqs=settings.max_num_seqs,
            seed=settings.seed,
            engines=engines,
            engines_of_command=len(settings.mode.speakers),
        )
        return tokenizer, engine.generate

    if settings.mode is Mode.EARLY_STOP:
        return EarlyStopSolver(settings, settings.early_stop, *load("single"))
    if settings.mode is not Mode.PAIR:
        return SingleSolver(settings, *load("single"))
    loaded = {role: load(role) for role in ROLES}
    participants = {
        role: Participant(tokenizer=tokenizer, generate=generate) for role, (tokenizer, generate) in loaded.items()
    }
    return PairSolver(settings, participants)
