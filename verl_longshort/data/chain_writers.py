"""Who writes the long chain of a problem: a file that has it, or a reasoning model that is asked."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from longshort_reward import match_answer

from verl_longshort.base.files import Record
from verl_longshort.base.rejected import RejectedError
from verl_longshort.base.seeds import derived_seed
from verl_longshort.data.reasoning import Written, chain_of, read_written, written_in_row
from verl_longshort.llm.client import RefusedError
from verl_longshort.llm.task_client import TaskClient
from verl_longshort.problems.held_out import text_of
from verl_longshort.problems.overlap import words
from verl_longshort.problems.reader import Problem
from verl_longshort.problems.sources import Source, load_source

_KEY = "longshort.chains"


Writer = Callable[[Problem], Coroutine[Any, Any, Record]]
"""Makes the chain record of a problem. Raises RejectedError for one that gets no correct chain."""


@dataclass(frozen=True, kw_only=True)
class FileWriter:
    """Takes the first correct chain that a file has for a problem."""

    source: Source
    rows: dict[tuple[str, ...], int]
    """By the words of the row's problem."""
    answer_timeout_s: float

    @classmethod
    def load(cls, file: str, answer_timeout_s: float) -> "FileWriter":
        """Read all rows. Raises UserError for one without a problem or without a chain."""
        source = load_source(file, key=_KEY)
        rows: dict[tuple[str, ...], int] = {}
        for index in range(len(source.rows)):
            written_in_row(source.rows[index], key=_KEY, where=source.where(index))
            rows.setdefault(words(text_of(source, index, key=_KEY)), index)
        return cls(source=source, rows=rows, answer_timeout_s=answer_timeout_s)

    async def __call__(self, problem: Problem) -> Record:
        """See `Writer`; the file has the problem."""
        row = self.rows[words(problem.text)]
        failure = RejectedError("no chain for this problem")
        for written in written_in_row(self.source.rows[row], key=_KEY, where=self.source.where(row)):
            try:
                return await checked(problem, written, self.answer_timeout_s)
            except RejectedError as error:
                failure = error
        raise failure


@dataclass(frozen=True, kw_only=True)
class ModelWriter:
    """Asks a reasoning model until its answer is correct, each time with another seed."""

    asker: TaskClient
    instruction: str
    answer_timeout_s: float

    async def __call__(self, problem: Problem) -> Record:
        """See `Writer`. Raises UnavailableError when the model gives no answers at all."""
        failure = RejectedError("no chain for this problem")
        for attempt in range(self.asker.attempts):
            try:
                return await checked(problem, await self._ask(problem, attempt), self.answer_timeout_s)
            except RefusedError as error:
                raise RejectedError("refused by the model", str(error)) from error
            except RejectedError as error:
                failure = error
        raise failure

    async def _ask(self, problem: Problem, attempt: int) -> Written:
        asker = self.asker
        # Some endpoints take 32 signed bits.
        seed = derived_seed(asker.sampling.seed, f"{problem.text}/{attempt}", bits=31)
        sampling = replace(asker.sampling, samples=1, seed=seed)
        said = "\n\n".join(part for part in (problem.text, self.instruction) if part)
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
