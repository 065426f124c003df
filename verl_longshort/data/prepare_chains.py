"""The stage `prepare chains`: a sample of problems with long chains of thought that reach the correct answer.

Settings: `config/prepare_chains.yaml`; records and files: `docs/data.md`. Chains come from a file, or from a
reasoning model that is asked. Nothing is asked twice: its replies are kept in a file beside the output.
"""

import random
from collections.abc import Iterator, Sequence

from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.files import sibling_path, write_jsonl
from verl_longshort.base.progress import report
from verl_longshort.base.rejected import Rejected, RejectedError
from verl_longshort.data.card import Card, summary_table
from verl_longshort.data.chain_writers import FileWriter, ModelWriter, Writer
from verl_longshort.data.prepare_settings import ChainSettings
from verl_longshort.llm.settings import work_with_model
from verl_longshort.llm.task_client import TaskClient
from verl_longshort.problems.held_out import hold_out, refuse_known, training_problem
from verl_longshort.problems.overlap import KnownProblems, words
from verl_longshort.problems.reader import Problem
from verl_longshort.problems.sources import Source, is_here, load_source

_KEY = "longshort.source"
_REPORT_EVERY = 1000


def prepare_chains(settings: ChainSettings, console: Console) -> None:
    """Write the chains.

    Raises UserError, before a model is asked, when a source cannot be used, and when no chain is correct.
    """
    known, held_out = hold_out(settings.held_out, settings.similarity, settings.benchmark_dir)
    written = None if settings.chains is None else FileWriter.load(settings.chains, settings.answer_timeout_s)
    problems, aside = sample(settings, known, written)

    def writer(asker: TaskClient | None) -> Writer:
        if written is not None:
            return written
        assert asker is not None, "the settings have chains or a model"
        return ModelWriter(asker=asker, instruction=settings.instruction, answer_timeout_s=settings.answer_timeout_s)

    replies = sibling_path(settings.output, "replies")
    done, rejected, asked = work_with_model(
        problems, writer, settings.llm, replies=replies, seed=settings.seed, doing="chains"
    )
    write_jsonl(sibling_path(settings.output, "rejects"), [record.to_record() for record in [*aside, *rejected]])
    if not done:
        raise UserError(_KEY, settings.source or settings.chains, f"no chain is right{_first(rejected)}")
    write_jsonl(settings.output, done)
    counts = {"held out": held_out, "problems taken": len(problems), "chains": len(done)}
    card = Card(title="Chains", counts=counts, dropped=[*aside, *rejected], made_with=vars(settings))
    card.write(settings.output.parent, f"{settings.output.name.removesuffix('.jsonl')}.card")
    console.print(summary_table("chains", {**card.rows(), "requests to the model": asked}))


def sample(
    settings: ChainSettings, known: KnownProblems, written: FileWriter | None
) -> tuple[list[Problem], list[Rejected]]:
    """As many problems as are wanted, in an order that the seed decides, and what was passed over.

    Raises UserError when no problem can be used.
    """
    taken: list[Problem] = []
    aside: list[Rejected] = []
    before = KnownProblems(settings.similarity)
    for source, index in _in_random_order(settings, written):
        try:
            problem = training_problem(source, index)
            if written is not None and words(problem.text) not in written.rows:
                continue
            refuse_known(problem.text, known, "held out")
            refuse_known(problem.text, before, "taken before")
        except RejectedError as error:
            aside.append(Rejected.by(error, f"{source.name}#{index + 1}"))
            continue
        before.add(problem.text, problem.id)
        taken.append(problem)
        if len(taken) == settings.problems:
            break
    if written is not None and settings.source:
        aside += written.aside
    if not taken:
        raise UserError(_KEY, settings.source or settings.chains, f"no problem can be used{_first(aside)}")
    return taken, aside


def expected_chains(settings: ChainSettings) -> int:
    """How many chains there will be at most, of what can be read now. Raises UserError as `prepare_chains`."""
    plan = settings.readable
    known, _ = hold_out(plan.held_out, plan.similarity, plan.benchmark_dir)
    written = None
    if plan.chains is not None and is_here(plan.chains):
        written = FileWriter.load(plan.chains, plan.answer_timeout_s)
    if is_here(plan.source) if plan.source else written is not None:
        return len(sample(plan, known, written)[0])
    return plan.problems


def _in_random_order(settings: ChainSettings, written: FileWriter | None) -> Iterator[tuple[Source, int]]:
    if settings.source:
        source = load_source(settings.source, key=_KEY)
    else:
        assert written is not None
        source = written.source
    order = list(range(len(source.rows)))
    random.Random(settings.seed).shuffle(order)
    for done, index in enumerate(order):
        if done % _REPORT_EVERY == 0:
            report(0, settings.problems, f"{done}/{len(order)} problems looked at")
        if not settings.kinds or source.rows[index].get("problem_source") in (None, *settings.kinds):
            yield source, index


def _first(aside: Sequence[Rejected]) -> str:
    return f"; the first one, {aside[0].id}: {aside[0].reason}, {aside[0].detail}" if aside else ""
