"""What the base model of the miniature world is trained on: rows of tokens, from drills to full problems.

A row is its token ids with a loss mask. Straight training on full problems stays on a plateau for minutes;
the drills first teach the two skills the long chain is made of, walking along a list and adding two digits.

The base learns two modes, told apart by the opening tag. `<think>` opens the long chain, closed by the boxed
answer; `<answer>` opens the concise form, either at once or after the first thoughts of a chain. The base
opens with `<think>` by itself: in the other rows the tags that choose the mode carry no loss.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial

import torch
from transformers import PreTrainedTokenizerFast

from verl_longshort.world.world import (
    COUNTER_SIZE,
    Difficulty,
    Problem,
    Split,
    boxed,
    concise,
    long_cot,
    steps_done,
    stream_problems,
)

IGNORED = -100
_FACTS_PER_ROW = 8
# Batches of more padded tokens are cut: rows of like lengths go together, so little is spent on padding.
_TOKENS_AT_ONCE = 1024
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Token ids and, for each, whether predicting it counts in the loss."""

    ids: list[int]
    counts: list[bool]


class RowMaker:
    """Makes rows of every kind for one tokenizer, from one source of randomness."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> None:
        # drills repeat their few texts
        self._encode = lru_cache(1024)(partial(tokenizer.encode, add_special_tokens=False))
        self._rng = rng

    def walk(self) -> Row:
        """Lists named in front, one of them walked along: `a ( 3 1 ) ; b ( 5 2 ) ? step b list : 5 5 2 2 )`."""
        digits = self._rng.sample(range(10), 10)
        cut = self._rng.randint(3, 7)
        lists = {"a": digits[:cut], "b": digits[cut : self._rng.randint(cut + 2, 10)]}
        names = self._rng.sample(sorted(lists), 2)
        shown = " ; ".join(f"{name} ( {' '.join(map(str, lists[name]))} )" for name in names)
        walked = lists[self._rng.choice(names)]
        name = next(n for n in names if lists[n] is walked)
        pairs = " ".join(f"{digit} {digit}" for digit in walked)
        return self._row((f"<bos> {shown} ? step {name} list :", False), (f"{pairs} )", True))

    def facts(self) -> Row:
        """Sums of two digits, only the results counting."""
        spans: list[tuple[str, bool]] = [("<bos>", False)]
        for _ in range(_FACTS_PER_ROW):
            left, right = self._rng.randrange(10), self._rng.randrange(10)
            spans += [(f"{left} + {right} =", False), (str((left + right) % COUNTER_SIZE), True)]
        return self._row(*spans)

    def long(self, problem: Problem) -> Row:
        """The long chain of thought and the boxed answer."""
        chain = " ".join(thought.text for thought in long_cot(problem, self._rng))
        solution = f"<think> {chain} </think> <answer> {boxed(problem)} </answer> <eos>"
        return self._row((f"<bos> {problem.text}", False), (solution, True))

    def direct(self, problem: Problem) -> Row:
        """The concise form, at once."""
        return self._row((f"<bos> {problem.text} <answer>", False), (f"{concise(problem)} </answer> <eos>", True))

    def prefixed(self, problem: Problem) -> Row:
        """The first thoughts of a chain, then the concise form of what is left."""
        thoughts = long_cot(problem, self._rng)
        prefix = thoughts[: self._rng.randint(1, len(thoughts) - 1)]
        rest = concise(problem, from_step=steps_done(prefix))
        return self._row(
            (f"<bos> {problem.text} <think>", False),
            (" ".join(thought.text for thought in prefix), True),
            ("</think> <answer>", False),
            (f"{rest} </answer> <eos>", True),
        )

    def _row(self, *spans: tuple[str, bool]) -> Row:
        ids: list[int] = []
        counts: list[bool] = []
        for text, counted in spans:
            tokens = self._encode(text)
            ids += tokens
            counts += [counted] * len(tokens)
        return Row(ids=ids, counts=counts)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A part of the curriculum.

    Attributes:
        steps: optimizer steps, at most.
        rows: rows of one shard's batch, by kind.
        difficulty: what the problems of this lesson look like.
        mastered: kind of row -> what its loss must stay below at the end. Else the base has not learned the lesson.
        ends_early: the lesson ends as soon as it is mastered.
    """

    steps: int
    rows: dict[str, int]
    difficulty: Difficulty
    mastered: dict[str, float] = field(default_factory=dict)
    ends_early: bool = True


_SMALL = Difficulty(steps=(1, 2), list_items=(2, 4), hard_weights=(0.1, 0.6, 0.3))
CURRICULUM = (
    Lesson(steps=500, rows={"walk": 32}, difficulty=_SMALL, mastered={"walk": 0.05}),
    Lesson(steps=700, rows={"facts": 24, "walk": 8}, difficulty=_SMALL, mastered={"facts": 0.1, "walk": 0.1}),
    Lesson(steps=250, rows={"long": 10, "direct": 4, "facts": 8, "walk": 8}, difficulty=_SMALL),
    Lesson(
        steps=700,
        rows={"long": 10, "direct": 6, "prefixed": 4, "facts": 4},
        difficulty=Difficulty(),
        # 0.016 are the choices of wording; of two bases, 0.018 solved 98 % and 0.020 solved 88 %
        mastered={"long": 0.02},
        ends_early=False,
    ),
)


def batches(lesson: Lesson, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> Iterator[list[list[Batch]]]:
    """Each step's micro-batches by kind of row: ids and labels, both (rows, longest), padded on the right.

    Kinds are kept apart so that each weighs the same in the loss.
    """
    maker = RowMaker(tokenizer, rng)
    problems = stream_problems(rng, Split.TRAIN, lesson.difficulty)
    kinds: dict[str, Callable[[], Row]] = {
        "walk": maker.walk,
        "facts": maker.facts,
        "long": lambda: maker.long(next(problems)),
        "direct": lambda: maker.direct(next(problems)),
        "prefixed": lambda: maker.prefixed(next(problems)),
    }
    for _ in range(lesson.steps):
        yield [_micro_batches([kinds[kind]() for _ in range(count)], tokenizer) for kind, count in lesson.rows.items()]


def _micro_batches(rows: list[Row], tokenizer: PreTrainedTokenizerFast) -> list[Batch]:
    parts: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if not parts or (len(parts[-1]) + 1) * len(row.ids) > _TOKENS_AT_ONCE:
            parts.append([])
        parts[-1].append(row)
    return [_collate(part, tokenizer) for part in parts]


def _collate(rows: list[Row], tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Token ids and labels of some rows, both (rows, longest); labels are `IGNORED` where nothing counts."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    labels = torch.full((len(rows), longest), IGNORED)
    for index, row in enumerate(rows):
        tokens = torch.tensor(row.ids)
        ids[index, : len(row.ids)] = tokens
        labels[index, : len(row.ids)] = torch.where(torch.tensor(row.counts), tokens, IGNORED)
    return ids, labels
