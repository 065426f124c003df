"""Keeps training data apart from what is held out: benchmarks by name, and any other file or data set."""

from collections.abc import Iterator, Sequence

from longshort_reward.errors import UserError

from verl_longshort.base.rejected import RejectedError
from verl_longshort.base.seeds import derived_bytes
from verl_longshort.problems.benchmarks import BENCHMARKS, find_files, load_benchmark
from verl_longshort.problems.fields import ANSWER, SOLUTION, find_schema
from verl_longshort.problems.overlap import KnownProblems, words
from verl_longshort.problems.reader import AnswerError, Problem, RowError, problem_text, read_problem
from verl_longshort.problems.sources import Source, load_source

_LONGEST_ANSWER = 200


def hold_out(sources: Sequence[str], similarity: float, benchmark_dir: str | None) -> tuple[KnownProblems, int]:
    """What is held out, and how many problems that are.

    `sources` are benchmarks by name, read as `longshort eval` reads them, and any other source. Raises
    UserError.
    """
    known = KnownProblems(similarity)
    for name in sources:
        for where, text in _texts(name, benchmark_dir):
            known.add(text, where)
    return known, len(known)


def _texts(name: str, benchmark_dir: str | None) -> Iterator[tuple[str, str]]:
    if name in BENCHMARKS:
        (found,) = find_files([name], {}, benchmark_dir, [], None)
        benchmark = load_benchmark(found, template="{problem}", option_seed=0, limit=None)
        yield from ((f"{name}, record {problem.index + 1}", problem.text) for problem in benchmark.problems)
        return
    source = load_source(name, key="longshort.held_out")
    for index in range(len(source.rows)):
        yield source.where(index), text_of(source, index, key="longshort.held_out")


def text_of(source: Source, index: int, *, key: str) -> str:
    """The problem of a row, which may have no answer. Raises UserError when it has no problem."""
    try:
        return problem_text(source.rows[index]).strip()
    except RowError as error:
        raise UserError(key, source.where(index), f"{error}") from error


def training_problem(source: Source, index: int) -> Problem:
    """Row `index` of a source, to train on.

    Raises:
        RejectedError: its problem or its answer cannot be found or is none.
    """
    row = source.rows[index]
    schema = find_schema(row)
    try:
        if schema is None:
            problem_text(row)
            names, found = " or ".join((*ANSWER, *SOLUTION)), ", ".join(sorted(map(str, row)))
            raise AnswerError(f"has no answer under {names} (its fields: {found})")
        problem = read_problem(row, schema, source=source.name, index=index)
    except AnswerError as error:
        raise RejectedError("no final answer", str(error)) from error
    except RowError as error:
        raise RejectedError("no problem", str(error)) from error
    answer = problem.ground_truth
    if len(answer) > _LONGEST_ANSWER:
        raise RejectedError("a final answer that is none", f"{len(answer)} characters: {answer[:60]}")
    return problem


def refuse_known(text: str, known: KnownProblems, reason: str) -> None:
    """Raises RejectedError when `text` is one of `known`, or nearly."""
    match = known.match(text)
    if match is not None:
        raise RejectedError(f"{reason}, {match.likeness}", f"{match.name} ({match.similarity:.2f})")


def random_rank(text: str, seed: int) -> str:
    """A number for a problem, as text, by which problems are in random order."""
    return derived_bytes(seed, " ".join(words(text))).hex()
