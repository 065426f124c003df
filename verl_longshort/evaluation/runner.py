"""Evaluates a pair or a single model: every trajectory to a file, then a summary.

`evaluate(overrides)` is the command. It can be killed at any moment and started again: what is in the file
is not done again, and what is sampled for an answer depends on its seed alone, so the result is the same.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

from longshort_reward.protocol import ROLES, Role

from verl_longshort import __version__
from verl_longshort.base.concurrency import run_bounded
from verl_longshort.base.console import say
from verl_longshort.base.errors import UnavailableError
from verl_longshort.base.files import Record, absolute_model, write_json
from verl_longshort.base.journal import RecordFile
from verl_longshort.base.progress import report
from verl_longshort.base.seeds import derived_seed
from verl_longshort.core.environment import StopReason
from verl_longshort.core.role_view import Tokenizer
from verl_longshort.core.trajectory import Generate, Participant
from verl_longshort.engines.factory import open_engine
from verl_longshort.engines.sampling_params import TooLongError
from verl_longshort.engines.tokenizers import check_chat, load_tokenizer, said_of_system
from verl_longshort.evaluation.early_stop import EarlyStopSolver
from verl_longshort.evaluation.grading import MARKERS, grade
from verl_longshort.evaluation.settings import EvaluationSettings, Mode
from verl_longshort.evaluation.solvers import ChatSolver, PairSolver, SingleSolver, Solver
from verl_longshort.evaluation.summary import Summary, summarise
from verl_longshort.llm.client import RefusedError
from verl_longshort.llm.endpoint import CompletionEndpoint, EndpointClient
from verl_longshort.llm.server import Server
from verl_longshort.llm.settings import api_key
from verl_longshort.problems.reader import Problem


def evaluate(settings: EvaluationSettings) -> Summary:
    """Answer and grade; write records and summary.

    Raises UserError before a model is loaded when the problems or the models' tokenizers cannot be used.
    """
    benchmarks = settings.load_benchmarks()
    check_prompts(settings)
    header = {
        **settings.header(),
        "data": "+".join(benchmark.name for benchmark in benchmarks),
        "problems": sum(len(benchmark.problems) for benchmark in benchmarks),
        "benchmarks": [dict(benchmark.origin) for benchmark in benchmarks],
    }
    # Worth knowing about a run, but not deciding its result.
    notes = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "version": __version__,
        "max_num_seqs": settings.max_num_seqs,
        "aha_markers": list(MARKERS),
    }
    with RecordFile(settings.records_file, header, notes=notes) as file:
        tasks = []
        done = file.done
        # Sample by sample, so that an interrupted run has seen all problems.
        for sample in range(settings.samples):
            for problem in (problem for benchmark in benchmarks for problem in benchmark.problems):
                name = f"{problem.source}/{problem.index}/{sample}"
                if name not in done:
                    tasks.append(Task(id=name, problem=problem, seed=derived_seed(settings.seed, name)))
        if tasks:
            _work(settings, tasks, file)
        summary = summarise(settings.name, file.records, timeout_s=settings.answer_timeout_s)
    write_json(settings.summary_file, summary.to_json())
    return summary


REFUSED = "refused"
"""Stop reason of a problem that the model can never answer, such as one that does not fit its context."""
_MOST_REFUSED = 8
"""So many, and none answered: then it is the request, not the problem."""


class Model(NamedTuple):
    """A model of the evaluation, in this process or behind an endpoint."""

    tokenizer: Tokenizer
    generate: Generate
    context_tokens: int | None = None
    """Tokens of prompt and answer at most, where that is known."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One answer to one problem."""

    id: str
    problem: Problem
    seed: int


def _work(settings: EvaluationSettings, tasks: Sequence[Task], file: RecordFile) -> None:
    total = len(file.records) + len(tasks)
    answered = any(record["stop_reason"] != REFUSED for record in file.records)
    refused: list[Record] = []

    def keep(record: Record) -> None:
        nonlocal answered
        answered = answered or record["stop_reason"] != REFUSED
        if not answered:
            # It may be no problem of this problem: kept only once another one is answered.
            refused.append(record)
            if len(refused) == _MOST_REFUSED:
                raise _all_refused(refused)
            return
        for held in (*refused, record):
            file.append(held)
        refused.clear()
        correct = sum(done["correct"] for done in file.records)
        count = len(file.records)
        report(count, total, f"{count}/{total} answers, {correct / count:.1%} correct")

    async def solve(models: Mapping[str, Model]) -> None:
        async with AsyncExitStack() as connections:
            solver = _solver(settings, models, connections)
            await run_bounded(
                tasks,
                lambda task: _answer(task, solver, settings),
                keep,
                # Both engines of a pair are kept busy while the other one speaks.
                limit=settings.max_num_seqs * len(settings.base_urls or settings.engine_models),
                timeout_s=settings.rollout_timeout_s,
            )

    with ExitStack() as engines:
        asyncio.run(solve(_load(settings, engines)))
    if refused:
        raise _all_refused(refused)


def _all_refused(refused: Sequence[Record]) -> UnavailableError:
    first = refused[0]
    return UnavailableError(f"the model refused a problem, and answered none: {first['id']}, {first['refusal']}")


async def _answer(task: Task, solver: Solver, settings: EvaluationSettings) -> Record:
    started = time.monotonic()
    try:
        answer = await solver(task.problem.text, seed=task.seed)
    except (RefusedError, TooLongError) as error:
        nothing = {"turns": [], "text": "", "tokens": dict.fromkeys(settings.mode.model_roles, 0), "rethinks": 0}
        answer = {"problem": task.problem.text, **nothing, "stop_reason": REFUSED, "refusal": str(error)}
    seconds = time.monotonic() - started
    # as in training: a trajectory without an answer gave none, whatever numbers its turns mention
    answered = answer["stop_reason"] == StopReason.ANSWERED
    text = answer["text"] if answered or not settings.mode.keeps_protocol else ""
    grading = await asyncio.to_thread(grade, task.problem, text, timeout_s=settings.answer_timeout_s)
    return {
        "id": task.id,
        "benchmark": task.problem.source,
        "problem_index": task.problem.index,
        "ground_truth": task.problem.ground_truth,
        "extra_info": dict(task.problem.extra),
        **answer,
        "answer": grading.answer,
        "correct": grading.correct,
        "seconds": round(seconds, 3),
    }


def check_prompts(settings: EvaluationSettings) -> None:
    """Check that the tokenizers of all models can make prompts, before a model is loaded. Raises UserError."""
    if settings.base_urls and settings.mode is Mode.PLAIN:
        # the server makes them
        return
    behind = {role: settings.tokenizer_path(role) for role in settings.base_urls}
    for role, path in (behind or settings.model_paths).items():
        pair, tokenizer = settings.mode is Mode.PAIR, _tokenizer(settings, role, path)
        system = settings.prompts.for_role(Role(role)) if pair else settings.system_prompt
        prompt_key = f"longshort.environment.prompts.{role}" if pair else "longshort.system_prompt"
        key = f"longshort.models.{role}"
        protocol = settings.mode.keeps_protocol
        check_chat(tokenizer, path, key=key, system=system, prompt_key=prompt_key, protocol=protocol)
        if note := said_of_system(tokenizer, path, system=system, prompt_key=prompt_key):
            say(f"note: {note}")


def _tokenizer(settings: EvaluationSettings, role: str, path: str) -> Any:
    return load_tokenizer(
        path,
        key=f"longshort.models.{role}",
        trust_remote_code=settings.trust_remote_code,
        files_key="longshort.trust_remote_code",
    )


def _load(settings: EvaluationSettings, engines: ExitStack) -> dict[str, Model]:
    """The models in this process, loaded before the event loop runs; none when they are behind endpoints."""
    if settings.base_urls:
        return {}
    loaded = {}
    for path in settings.engine_models:
        tokenizer, engine = open_engine(
            path,
            settings,
            max_num_seqs=settings.max_num_seqs,
            seed=settings.seed,
            engines=engines,
            engines_of_command=len(settings.engine_models),
        )
        loaded[path] = Model(tokenizer, engine.generate, engine.max_model_len)
    return {role: loaded[absolute_model(path)] for role, path in settings.model_paths.items()}


def _solver(settings: EvaluationSettings, models: Mapping[str, Model], connections: AsyncExitStack) -> Solver:
    """The solver of the mode; `connections` closes those to endpoints, in the event loop that used them."""
    options: dict[str, Any] = {
        "api_key": api_key(settings.endpoint.api_key_env) if settings.base_urls else None,
        "concurrency": settings.max_num_seqs,
        "timeout_s": settings.endpoint.timeout_s,
        "attempts": settings.endpoint.attempts,
        "names": dict(settings.endpoint.request_names),
        "key": "longshort.endpoint",
    }
    if settings.base_urls and settings.mode is Mode.PLAIN:
        client = EndpointClient(settings.base_urls["single"], model=settings.model_paths["single"], **options)
        connections.push_async_callback(client.aclose)
        return ChatSolver(settings, client)
    if settings.base_urls:
        models = {}
        for role, url in settings.base_urls.items():
            server = Server(url, **options)
            connections.push_async_callback(server.aclose)
            tokenizer = _tokenizer(settings, role, settings.tokenizer_path(role))
            endpoint = CompletionEndpoint(server, settings.model_paths[role])
            models[role] = Model(tokenizer, endpoint.generate)
    if settings.mode is Mode.PAIR:
        return PairSolver(settings, {role: Participant(**models[role]._asdict()) for role in ROLES})
    single = models["single"]
    if settings.mode is Mode.EARLY_STOP:
        return EarlyStopSolver(settings, settings.early_stop, single.tokenizer, single.generate)
    return SingleSolver(settings, single.tokenizer, single.generate)
