"""Who writes the long chain of a problem: a file that has it, or a reasoning model that is asked.

A chain is what stands before `</think>`; the answer behind it is only looked at for the final answer. Models whose
chat template opens `<think>` do not write that tag themselves. Of the rows of a file:

| fields of a row | taken |
|---|---|
| `chain` | as it is |
| `reasoning_content`, `reasoning`, `thinking` | chain; the answer: `content`, `answer_content`, `response` |
| `generations` (a list, as in OpenR1-Math) | each as a text with tags |
| `response`, `generation`, `generated_solution`, `output`, `r1_solution` | a text with tags |
| `messages`, `conversations` | the assistant's last message: `reasoning_content`, or a text with tags |

The `thoughts` of a row, a generator's labels, are passed on with its chain.
"""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from longshort_reward import match_answer
from longshort_reward.answer import last_boxed
from longshort_reward.errors import UserError
from longshort_reward.protocol import TAGS, THINK_CLOSE, THINK_OPEN

from verl_longshort.base.characters import half_character
from verl_longshort.base.files import Record
from verl_longshort.base.rejected import Rejected, RejectedError
from verl_longshort.base.seeds import derived_seed
from verl_longshort.llm.client import RefusedError
from verl_longshort.llm.task_client import TaskClient
from verl_longshort.problems.fields import ASSISTANTS, RowError, field_name, joined_parts, thinking_apart
from verl_longshort.problems.overlap import words
from verl_longshort.problems.reader import Problem, problem_text
from verl_longshort.problems.sources import Source, load_source

_KEY = "longshort.chains"
_REASONING = ("reasoning_content", "reasoning", "thinking")
_ANSWERS = ("content", "answer_content", "response")
_TEXTS = ("response", "generation", "generated_solution", "output", "r1_solution")
_CHATS = ("messages", "conversations")
_KNOWN = ("chain", *_REASONING, "generations", *_TEXTS, *_CHATS)

Writer = Callable[[Problem], Coroutine[Any, Any, Record]]
"""Makes the chain record of a problem. Raises RejectedError for one that gets no correct chain."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """One solution of a reasoning model."""

    reasoning: str
    """What it thought; empty when the thinking did not end."""
    answer: str | None
    """What it said then; None where there is only the chain."""


@dataclass(frozen=True, kw_only=True)
class FileWriter:
    """Takes the first correct chain that a file has for a problem."""

    source: Source
    rows: dict[tuple[str, ...], int]
    """By the words of the row's problem."""
    aside: list[Rejected]
    """Rows whose problem cannot be read."""
    answer_timeout_s: float

    @classmethod
    def load(cls, file: str, answer_timeout_s: float) -> "FileWriter":
        """Read all rows. Raises UserError for one without a field for the chain, and when no row has a problem."""
        source = load_source(file, key=_KEY)
        rows: dict[tuple[str, ...], int] = {}
        aside: list[Rejected] = []
        for index in range(len(source.rows)):
            with suppress(RejectedError):
                written_in_row(source.rows[index], key=_KEY, where=source.where(index))
            try:
                rows.setdefault(words(problem_text(source.rows[index])), index)
            except RowError as error:
                aside.append(Rejected(id=f"{source.name}#{index + 1}", reason="no problem", detail=str(error)))
        if not rows:
            raise UserError(_KEY, source.where(0), f"{aside[0].detail}; nor has any other row a problem")
        return cls(source=source, rows=rows, aside=aside, answer_timeout_s=answer_timeout_s)

    async def __call__(self, problem: Problem) -> Record:
        """See `Writer`; the file has the problem."""
        row = self.rows[words(problem.text)]
        failure = RejectedError("no chain for this problem")
        for written in written_in_row(self.source.rows[row], key=_KEY, where=self.source.where(row)):
            try:
                record = await checked(problem, written, self.answer_timeout_s)
            except RejectedError as error:
                failure = error
            else:
                labels = self.source.rows[row].get("thoughts")
                return record if labels is None else {**record, "thoughts": labels}
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


def written_in_row(row: Mapping[str, Any], *, key: str, where: str) -> list[Written]:
    """The solutions in a row of a file, in its order.

    Raises:
        UserError: the row has none of the fields above, or its messages are no list.
        RejectedError: what a field holds is no text.
    """
    if (chat := field_name(row, _CHATS)) is not None and not _is_chat(row[chat]):
        remedy = f"'{chat}' is {type(row[chat]).__name__}, not a list of messages: give [{{role, content}}, ...]"
        raise UserError(key, where, remedy)
    try:
        found = list(_found(row))
    except RowError as error:
        raise RejectedError("no chain for this problem", str(error)) from error
    if not found:
        fields = ", ".join(sorted(map(str, row))) or "none"
        raise UserError(key, where, f"has no chain under {', '.join(_KNOWN)} (its fields: {fields})")
    return found


def read_written(text: str) -> Written:
    """A text with tags, cut at its last `</think>`."""
    before, closed, after = text.rpartition(THINK_CLOSE)
    reasoning = before.strip().removeprefix(THINK_OPEN).strip() if closed else ""
    return Written(reasoning=reasoning, answer=after.strip())


def chain_of(written: Written) -> str:
    r"""The chain, which ends with the final answer.

    Where the thinking itself has no `\boxed{}`, the one of the answer is added as a last step.

    Raises:
        RejectedError: the thinking did not end, there is half a character or a protocol tag in it, or neither it nor
            the answer has a box: that answer was cut.
    """
    if not written.reasoning:
        raise RejectedError("the thinking does not end", (written.answer or "")[-80:])
    if (half := half_character(written.reasoning)) is not None:
        raise RejectedError("half a character in the chain", f"{half}: the text was cut inside it")
    tags = [tag for tag in TAGS if tag in written.reasoning]
    if tags:
        raise RejectedError("a protocol tag in the chain", tags[0])
    if written.answer is None or last_boxed(written.reasoning) is not None:
        return written.reasoning
    box = last_boxed(written.answer)
    if box is None or half_character(box) is not None:
        raise RejectedError("the answer is cut", f"no \\boxed{{}} in it: {written.answer[-80:]}")
    return f"{written.reasoning}\n\nThe final answer is \\boxed{{{box}}}."


def _found(row: Mapping[str, Any]) -> Iterator[Written]:
    if row.get("chain"):
        yield Written(reasoning=joined_parts(row["chain"], "chain").strip(), answer=None)
    elif reasoning := _first(row, _REASONING):
        yield Written(reasoning=reasoning.strip(), answer=_first(row, _ANSWERS) or "")
    elif isinstance(row.get("generations"), Sequence) and not isinstance(row["generations"], str):
        yield from (read_written(joined_parts(text or "", "generations")) for text in row["generations"])
    elif text := _first(row, _TEXTS):
        yield read_written(text)
    elif (chat := field_name(row, _CHATS)) is not None:
        yield from _of_chat(row[chat])


def _is_chat(messages: Any) -> bool:
    listed = isinstance(messages, Sequence) and not isinstance(messages, str)
    return listed and all(isinstance(message, Mapping) for message in messages)


def _of_chat(messages: Sequence[Mapping[str, Any]]) -> Iterator[Written]:
    for message in reversed(messages):
        if str(message.get("role") or message.get("from")).lower() in ASSISTANTS:
            said, thought = thinking_apart(message.get("content") or message.get("value") or "")
            content, reasoning = joined_parts(said, "content"), _first(message, _REASONING) or thought
            yield (Written(reasoning=reasoning.strip(), answer=content) if reasoning else read_written(content))
            return


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    name = next((name for name in names if row.get(name)), None)
    return None if name is None else joined_parts(row[name], name)
