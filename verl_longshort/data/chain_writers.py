"""Who writes the long chain of a problem: a file that has it, or a reasoning model that is asked."""

import asyncio
import hashlib
from dataclasses import dataclass, replace
from typing import Protocol

from longshort_reward import match_answer

from verl_longshort.base.files import Record
from verl_longshort.base.rejected import RejectedError
from verl_longshort.data.reasoning import Written, chain_of, read_written, written_in_row
from verl_longshort.llm.client import RefusedError
from verl_longshort.llm.task_client import TaskClient
from verl_longshort.problems.held_out import text_of
from verl_longshort.problems.overlap import words
from verl_longshort.problems.reader import Problem
from verl_longshort.problems.sources import Source, load_source

_KEY = "longshort.chains"


class Writer(Protocol):
    """Makes the chain record of a problem."""

    async def __call__(self, problem: Problem) -> Record:
        """Raises RejectedError for a problem that gets no right chain."""
        ...


@dataclass(frozen=True, kw_only=True)
class WrittenChains:
    """The solutions of a file, by the words of their problem."""

    source: Source
    rows: dict[tuple[str, ...], int]

    @classmethod
    def load(cls, file: str) -> "WrittenChains":
        """Read all rows. Raises UserError for one without a problem or without a chain."""
        source = load_source(file, key=_KEY)
        rows: dict[tuple[str, ...], int] = {}
        for index in range(len(source.rows)):
            row, where = source.rows[index], source.where(index)
            written_in_row(row, key=_KEY, where=where)
            rows.setdefault(words(text_of(source, index, key=_KEY)), index)
        return cls(source=source, rows=rows)

    def of(self, text: str) -> list[Written]:
        """Those of a problem that the file has."""
        row = self.rows[words(text)]
        return written_in_row(self.source.rows[row], key=_KEY, where=self.source.where(row))


class FileWriter:
    """Takes the first right chain that a file has for a problem."""

    def __init__(self, written: WrittenChains, answer_timeout_s: float) -> None:
        self._written = written
        self._timeout_s = answer_timeout_s

    async def __call__(self, problem: Problem) -> Record:
        """See `Writer`."""
        failure = RejectedError("no chain for this problem")
        for written in self._written.of(problem.text):
            try:
                return await checked(problem, written, self._timeout_s)
            except RejectedError as error:
                failure = error
        raise failure


class ModelWriter:
    """Asks a reasoning model until its answer is right, each time with another seed."""

    def __init__(self, asker: TaskClient, instruction: str, answer_timeout_s: float) -> None:
        self._asker = asker
        self._instruction = instruction
        self._timeout_s = answer_timeout_s

    async def __call__(self, problem: Problem) -> Record:
        """See `Writer`. Raises UnavailableError when the model gives no answers at all."""
        failure = RejectedError("no chain for this problem")
        for attempt in range(self._asker.attempts):
            try:
                return await checked(problem, await self._ask(problem, attempt), self._timeout_s)
            except RefusedError as error:
                raise RejectedError("refused by the model", str(error)) from error
            except RejectedError as error:
                failure = error
        raise failure

    async def _ask(self, problem: Problem, attempt: int) -> Written:
        asker = self._asker
        digest = hashlib.sha256(f"{asker.sampling.seed}/{problem.text}/{attempt}".encode()).digest()
        # Some endpoints take 32 signed bits.
        sampling = replace(asker.sampling, samples=1, seed=int.from_bytes(digest[:4], "big") >> 1)
        said = "\n\n".join(part for part in (problem.text, self._instruction) if part)
        messages = [{"role": "user", "content": said}]
        (reply,) = await asker.cache.ask(asker.client, chain_id(problem), messages, sampling)
        if not reply.complete:
            raise RejectedError("cut", f"{reply.finish_reason} after {reply.tokens} tokens")
        if reply.reasoning:
            return Written(reasoning=reply.reasoning.strip(), answer=reply.text.strip())
        return read_written(reply.text)


async def checked(problem: Problem, written: Written, timeout_s: float) -> Record:
    """The chain record. Raises RejectedError when the chain cannot be used or misses the answer."""
    chain = chain_of(written)
    if not await asyncio.to_thread(match_answer, chain, problem.ground_truth, timeout_s=timeout_s):
        raise RejectedError("wrong final answer", f"not {problem.ground_truth[:60]}: {chain[-80:]}")
    return {
        "id": chain_id(problem),
        "problem": problem.text,
        "ground_truth": problem.ground_truth,
        "chain": chain,
        "source": problem.id,
        "subject": problem.subject,
    }


def chain_id(problem: Problem) -> str:
    """16 hexadecimal digits of the problem's words: the same from any source."""
    return hashlib.sha256(" ".join(words(problem.text)).encode()).hexdigest()[:16]
