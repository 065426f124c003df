"""Problems with their final answers, read from rows of any data set, and set apart from those held out."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from longshort_reward.answer import last_boxed

from verl_longshort.base.rejected import RejectedError
from verl_longshort.problems.benchmarks import BENCHMARKS, find_sources, load_benchmark
from verl_longshort.problems.overlap import KnownProblems, words
from verl_longshort.problems.sources import (
    ANSWER_FIELDS,
    PROBLEM_FIELDS,
    SOLUTION_FIELDS,
    Row,
    Source,
    field_name,
    load_source,
    text_field,
)

_LONGEST_ANSWER = 200
_BARE_BOX = re.compile(r"\\boxed\s*(\w+)")
_SUBJECTS = ("subject", "type", "problem_type", "problem_source")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem with its final answer."""

    id: str
    """Where it is from: source and number of the row."""
    text: str
    answer: str
    subject: str | None
    level: int | None


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
        (found,) = find_sources([name], {}, benchmark_dir, [], None)
        benchmark = load_benchmark(found, template="{problem}", option_seed=0, limit=None)
        yield from ((f"{name}, record {problem.index + 1}", problem.text) for problem in benchmark.problems)
        return
    source = load_source(name, key="longshort.held_out")
    for index in range(len(source.rows)):
        where = source.where(index)
        yield where, problem_text(source.rows[index], where, key="longshort.held_out")


def refuse_known(text: str, known: KnownProblems, reason: str) -> None:
    """Raises RejectedError when `text` is one of `known`, or nearly."""
    match = known.match(text)
    if match is not None:
        raise RejectedError(f"{reason}, {match.likeness}", f"{match.name} ({match.similarity:.2f})")


def read_problem(source: Source, index: int, *, key: str) -> Problem:
    """Row `index` of a source.

    Raises:
        UserError: the row has no problem, or neither answer nor solution.
        RejectedError: its answer cannot be found or is none.
    """
    row, where = source.rows[index], source.where(index)
    text = problem_text(row, where, key=key)
    subject = field_name(row, _SUBJECTS)
    return Problem(
        id=f"{source.name}#{index + 1}",
        text=text,
        answer=_answer(row, key=key, where=where),
        subject=None if subject is None else str(row[subject]),
        level=_level(row.get("level")),
    )


def draw(text: str, seed: int) -> str:
    """A number for a problem, as text, by which problems are in random order."""
    return hashlib.sha256(f"{seed}/{' '.join(words(text))}".encode()).hexdigest()


def problem_text(row: Row, where: str, *, key: str) -> str:
    chat = row.get("prompt")
    if isinstance(chat, Sequence) and not isinstance(chat, str):
        # verl's own rows, such as a validation file that an earlier stage wrote
        return str(next(message["content"] for message in chat if message["role"] == "user")).strip()
    return text_field(row, PROBLEM_FIELDS, key=key, where=where)


def _answer(row: Row, *, key: str, where: str) -> str:
    name = field_name(row, ANSWER_FIELDS)
    if name is not None:
        return _usable(str(row[name]).strip())
    solution = text_field(row, SOLUTION_FIELDS, key=key, where=where)
    box = last_boxed(solution)
    if box is None:
        # MATH has some "\boxed 2"
        bare = _BARE_BOX.findall(solution)
        box = bare[-1] if bare else ""
    return _usable(box.strip())


def _usable(answer: str) -> str:
    if not answer:
        raise RejectedError("no final answer")
    if len(answer) > _LONGEST_ANSWER:
        raise RejectedError("a final answer that is none", f"{len(answer)} characters: {answer[:60]}")
    return answer


def _level(value: Any) -> int | None:
    digits = re.search(r"\d+", str(value)) if value is not None else None
    return int(digits.group()) if digits else None
