"""The miniature world: problems on which a model trained from scratch in minutes shows the effect.

A counter shows a digit and wraps at ten. Steps `a`, `b`, ... each add one digit, or the total of a whole list
of digits; the question is what the counter shows at the end. Adding a list in one go is the *hard* step: a
small model that just writes the result guesses, and is correct when it spells the list out digit by digit.
Adding one digit is *easy*.

`Problem` and `generate_problems` make the problems, `long_cot` the verbose chain of thought with its thoughts
labelled by kind, `concise` the short way to finish a problem.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from longshort_reward.compat import StrEnum

COUNTER_SIZE = 10
STEP_NAMES = ("a", "b", "c", "d")
_VALIDATION_PERCENT, _TEST_PERCENT = 5, 10
_ATTEMPTS_PER_PROBLEM = 100


class Split(StrEnum):
    """Which part of the world a problem belongs to; decided by a hash of its text alone."""

    TRAIN = "train"
    VALIDATION = "val"
    TEST = "test"


class ThoughtKind(StrEnum):
    """What a thought of the long chain does."""

    RESTATE = "restate"
    HARD = "hard"
    EASY = "easy"
    RECHECK_HARD = "recheck_hard"
    RECHECK_EASY = "recheck_easy"
    DETOUR = "detour"
    FINAL = "final"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a problem: `items` has one digit (easy) or several (a list to total: hard)."""

    name: str
    items: tuple[int, ...]

    @property
    def is_hard(self) -> bool:
        return len(self.items) > 1

    @property
    def text(self) -> str:
        digits = " ".join(map(str, self.items))
        return f"{self.name} ( {digits} )" if self.is_hard else f"{self.name} {digits}"


def split_of(identity: str) -> Split:
    """The split of the problems that this string tells from all others, by its hash."""
    percent = int(hashlib.sha256(identity.encode()).hexdigest(), 16) % 100
    if percent < _TEST_PERCENT:
        return Split.TEST
    return Split.VALIDATION if percent < _TEST_PERCENT + _VALIDATION_PERCENT else Split.TRAIN


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A start digit and the steps that follow it."""

    start: int
    steps: tuple[Step, ...]

    @cached_property
    def text(self) -> str:
        return f"start {self.start} ; " + " ; ".join(step.text for step in self.steps) + " ?"

    @cached_property
    def counters(self) -> tuple[int, ...]:
        """What the counter shows before the first step and after each step: `len(steps) + 1` digits."""
        shown = [self.start]
        for step in self.steps:
            shown.append((shown[-1] + sum(step.items)) % COUNTER_SIZE)
        return tuple(shown)

    @property
    def answer(self) -> str:
        return str(self.counters[-1])

    @property
    def hard_steps(self) -> tuple[int, ...]:
        return tuple(k for k, step in enumerate(self.steps) if step.is_hard)

    @cached_property
    def split(self) -> Split:
        return split_of(self.text)


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """The range that problems are sampled from; the defaults are the world itself, smaller ones serve a curriculum.

    Attributes:
        steps: fewest and most steps of a problem.
        list_items: fewest and most digits of a list; the digits of all lists of a problem are distinct.
        hard_weights: relative frequency of problems with 0, 1, 2, ... hard steps.
    """

    steps: tuple[int, int] = (2, 4)
    list_items: tuple[int, int] = (3, 5)
    hard_weights: tuple[float, ...] = (0.2, 0.5, 0.3)


@dataclass(frozen=True)
class Thought:
    """One thought of a long chain.

    Attributes:
        kind: what the thought does.
        step: index of the step it works on, or None (restating, final).
        text: its words in the long chain; all thoughts joined by a space are the chain.
        concise: its short form; empty when there is nothing to say. The first re-check of a hard step becomes
            the bare result, so that short always has a turn to take between two hard steps.
    """

    kind: ThoughtKind
    step: int | None
    text: str
    concise: str = ""


def draw_problem(rng: random.Random, difficulty: Difficulty) -> Problem:
    """One random problem, of whatever split its hash says."""
    count = rng.randint(*difficulty.steps)
    weights = difficulty.hard_weights
    hard_count = min(count, rng.choices(range(len(weights)), weights)[0])
    hard = set(rng.sample(range(count), hard_count))
    unused = list(range(10))
    steps = []
    for k in range(count):
        items = rng.sample(unused, rng.randint(*difficulty.list_items)) if k in hard else [rng.randint(0, 9)]
        if k in hard:
            unused = [digit for digit in unused if digit not in items]
        steps.append(Step(name=STEP_NAMES[k], items=tuple(items)))
    return Problem(start=rng.randint(0, 9), steps=tuple(steps))


def stream_problems(rng: random.Random, split: Split, difficulty: Difficulty) -> Iterator[Problem]:
    """Problems of one split without end; repeats are possible."""
    while True:
        problem = draw_problem(rng, difficulty)
        if problem.split == split:
            yield problem


def generate_problems(*, seed: int, count: int, split: Split, difficulty: Difficulty | None = None) -> list[Problem]:
    """`count` distinct problems of one split, the same for the same seed.

    Raises:
        ValueError: the world, at this difficulty, seems to have fewer distinct problems than asked for.
    """
    problems: dict[str, Problem] = {}
    stream = stream_problems(random.Random(seed), split, difficulty or Difficulty())
    for _ in range(count * _ATTEMPTS_PER_PROBLEM):
        if len(problems) == count:
            break
        problem = next(stream)
        problems.setdefault(problem.text, problem)
    if len(problems) < count:
        raise ValueError(f"count={count}: found only {len(problems)} distinct problems; lower the count")
    return list(problems.values())


def concise(problem: Problem, *, from_step: int = 0) -> str:
    """The short way from `from_step` to the boxed answer, one sum per step."""
    sums = [_sum(problem, k) for k in range(from_step, len(problem.steps))]
    return " ".join([*sums, boxed(problem)])


def boxed(problem: Problem) -> str:
    """The final answer as the short form writes it."""
    return f"\\boxed{{ {problem.answer} }}"


def long_cot(problem: Problem, rng: random.Random) -> list[Thought]:
    """The verbose chain of thought: restating, each step with its re-checks, the conclusion.

    `rng` decides the wording and how often a step is checked again; every sum in the chain is correct. Behind the
    name of its step a list is called one, as in the short form: a base that has to find that out while it adds takes
    some for single digits.
    """
    start, span = problem.start, f"{problem.steps[0].name} to {problem.steps[-1].name}"
    restated = rng.choice(
        (
            f"okay , start at {start} .",
            f"okay , so we start at {start} and follow {span} .",
            f"okay , let us see . we start at {start} and follow the steps {span} in order .",
        )
    )
    thoughts = [Thought(ThoughtKind.RESTATE, None, restated)]
    for k, step in enumerate(problem.steps):
        thoughts += _hard_thoughts(problem, k, rng) if step.is_hard else _easy_thoughts(problem, k, rng)
    closing = f"so the answer is {problem.answer} ."
    return [*thoughts, Thought(ThoughtKind.FINAL, None, closing, boxed(problem))]


def steps_done(thoughts: list[Thought]) -> int:
    """How many steps of the problem these first thoughts of a chain have finished."""
    return sum(thought.kind in (ThoughtKind.HARD, ThoughtKind.EASY) for thought in thoughts)


def _hard_thoughts(problem: Problem, k: int, rng: random.Random) -> list[Thought]:
    name, after = problem.steps[k].name, problem.counters[k + 1]
    spelled = _spelled(problem, k)
    slowly = rng.choice(("", "so we go slowly : "))
    work = f"step {name} list : {slowly}{spelled} so {name} = {after} ."
    check = f"wait , check {name} list again : {spelled} yes , {name} = {after} ."
    over = f"hmm , over {name} list again : {spelled} yes , {name} = {after} ."
    return [
        Thought(ThoughtKind.HARD, k, work, _sum(problem, k)),
        Thought(ThoughtKind.RECHECK_HARD, k, check, f"{name} = {after}"),
        Thought(ThoughtKind.RECHECK_HARD, k, over),
    ]


def _easy_thoughts(problem: Problem, k: int, rng: random.Random) -> list[Thought]:
    name, after = problem.steps[k].name, problem.counters[k + 1]
    work = f"{problem.steps[k].items[0]} + {problem.counters[k]} = {after}"
    text = f"step {name} : {work} so {name} = {after} ."
    thoughts = [Thought(ThoughtKind.EASY, k, text, _sum(problem, k))]
    if rng.random() < 0.5:
        check = f"hmm , check {name} again : {work} yes , {name} = {after} ."
        thoughts.append(Thought(ThoughtKind.RECHECK_EASY, k, check))
    return thoughts


def _sum(problem: Problem, k: int) -> str:
    step = problem.steps[k]
    what = "list" if step.is_hard else str(step.items[0])
    return f"{step.name} {what} + {problem.counters[k]} = {problem.counters[k + 1]}"


def _spelled(problem: Problem, k: int) -> str:
    """The list added digit by digit; `)` closes it.

    Every sum repeats the digit before it, which keeps the work local: the next digit is found by matching
    that one. Without the comma, a result and the digit repeated behind it would look like two neighbors of a list.
    """
    items, shown = problem.steps[k].items, problem.counters[k]
    sums, previous = [], ""
    for item in items:
        total = (item + shown) % COUNTER_SIZE
        sums.append(f"{previous}{item} + {shown} = {total}")
        previous, shown = f", {item} ", total
    return " ".join([*sums, f"{previous})"])
