r"""The prose world: word problems about things that somebody has, with verbose chains of thought in English paragraphs.

Somebody starts with a few things; then things are won or lost, one amount at a time (*easy*) or several amounts at once
(*hard*: a small model that writes their sum at once has to guess, and is correct when it adds them one by one). A
problem may also tell of other things, which do not count. The question is how many things there are in the end.

A chain goes through the story sentence by sentence. It quotes each and has one thought, or two, about it, and every
thought begins with a discourse marker, as those of reasoning models do. Quoting is what makes a chain easy to learn: a
small model copies the sentence after the last one that it copied, and then reads one sentence instead of a story.
`Thought.kind` says what a thought is for: the working thoughts matter; restating, checking again and looking at what
does not count do not.

Problems of the test split are told in phrases that no problem of the other splits has.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from verl_longshort.world.world import Split, Thought, ThoughtKind, split_of

_NAMES = ("Maya", "Tom", "Lena", "Omar", "Ruth", "Paul", "Nina", "Ivan", "Sara", "Hugo", "Alma", "Finn")
_THINGS = ("apples", "stamps", "marbles", "shells", "books", "coins", "pens", "eggs", "stones", "cards")
_ATTEMPTS_PER_PROBLEM = 100
_MOST_THINGS = 60
_HARD_WEIGHTS = (0.2, 0.6, 0.2)
"""Relative frequency of problems with 0, 1, 2 hard steps."""
_OTHER_THINGS, _SECOND_CHECK, _CHECK_EASY = 0.5, 0.4, 0.5
"""Probabilities: that a problem tells of other things, of a second check of a hard step, and of one of an easy step."""


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """The sentences of a problem, each in several wordings."""

    start: Sequence[str]
    gain: Sequence[str]
    """One amount is won."""
    loss: Sequence[str]
    """One amount is lost."""
    several: Sequence[str]
    """Several amounts are won."""
    others: Sequence[str]
    """Things that do not count."""
    question: Sequence[str]


_SEEN = Phrases(
    start=(
        "{name} has {n} {things}.",
        "{name} starts the day with {n} {things}.",
        "There are {n} {things} on {name}'s table.",
        "In the morning {name} counts {n} {things}.",
        "{name} keeps {n} {things} in a box.",
        "This week began with {n} {things} in {name}'s room.",
        "{name} owns {n} {things}.",
        "A basket with {n} {things} belongs to {name}.",
    ),
    gain=(
        "Then {name} finds {n} more {things}.",
        "{name} buys {n} more {things}.",
        "A friend gives {name} {n} {things}.",
        "{name} wins {n} {things} in a game.",
        "An uncle sends {name} {n} {things}.",
        "{n} new {things} arrive.",
        "Soon {n} further {things} are put in.",
        "Another {n} {things} come with the mail.",
        "{name} gets {n} {things} as a present.",
        "{name} makes {n} {things}.",
        "{name} adds {n} {things}.",
        "{n} {things} that were missing turn up again.",
    ),
    loss=(
        "Then {name} gives {n} {things} away.",
        "{name} loses {n} {things}.",
        "{name} sells {n} {things}.",
        "{n} {things} are stolen.",
        "{name} throws {n} {things} into the bin.",
        "A neighbour borrows {n} {things}.",
        "{name} forgets {n} {things} on the bus.",
        "{n} {things} fall into the river.",
        "{name} hands {n} {things} to a cousin.",
        "Soon {n} {things} go missing.",
        "{name} drops {n} {things} and they are ruined.",
        "The dog runs off with {n} {things}.",
    ),
    several=(
        "In the next days {name} gets {list} {things}.",
        "{name} opens some boxes and finds {list} {things} in them.",
        "From several shops {name} brings home {list} {things}.",
        "Guests bring {list} {things}.",
        "Then bags with {list} {things} are delivered.",
        "{name} visits some friends, who hand over {list} {things}.",
        "In the garden {name} collects {list} {things}.",
        "For a birthday {name} is given {list} {things}.",
    ),
    others=(
        "{other} has {n} {others}.",
        "There are also {n} {others} in the room.",
        "{other} is {n} years old.",
        "{other} bought {n} {others} last year.",
        "Under the bed lie {n} {others}.",
        "{other} likes {others} and keeps {n}.",
        "In the kitchen lie {n} {others}.",
        "{n} {others} hang on the wall.",
        "{other} dreams of {n} {others}.",
        "A shop nearby sells {n} {others} a day.",
        "Next door there are {n} {others}.",
        "{other} wants to buy {n} {others}.",
    ),
    question=(
        "How many {things} does {name} have now?",
        "How many {things} are there in the end?",
        "How many {things} are left with {name}?",
        "How many {things} has {name} at last?",
    ),
)
_HELD_OUT = Phrases(
    start=("At first {n} {things} belong to {name}.", "{name} already owns {n} {things}."),
    gain=("Later {n} {things} are added.", "{name} receives another {n} {things} by post."),
    loss=("After that {n} {things} break.", "{name} leaves {n} {things} at school."),
    several=("Neighbours come by with bags of {list} {things}.", "On a walk {name} picks up {list} {things}."),
    others=("On the shelf stand {n} {others}.", "{other} collects {others} and has {n} of them."),
    question=("What is the number of {things} that {name} has at the end?", "Count the {things} of {name}."),
)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One step of a problem: `amounts` that are won, or lost where they are negative; several make it hard."""

    amounts: tuple[int, ...]

    @property
    def is_hard(self) -> bool:
        """Whether there are several amounts."""
        return len(self.amounts) > 1


@dataclass(frozen=True, kw_only=True)
class WordProblem:
    """What happens in a problem, and how it is told."""

    name: str
    things: str
    start: int
    events: tuple[Event, ...]
    others: tuple[int, str] | None
    """A number and what it counts, which has nothing to do with the answer."""
    wording: int
    """Seed of the choice among the phrases."""

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """How many things there are before the first event and after each one: `len(events) + 1` numbers."""
        counts = [self.start]
        for event in self.events:
            counts.append(counts[-1] + sum(event.amounts))
        return tuple(counts)

    @property
    def answer(self) -> str:
        """The last count."""
        return str(self.counts[-1])

    @property
    def hard_steps(self) -> tuple[int, ...]:
        """Indices of the hard events."""
        return tuple(k for k, event in enumerate(self.events) if event.is_hard)

    @cached_property
    def split(self) -> Split:
        """Decided by a hash of the numbers alone: no other split has a problem with the same ones."""
        return split_of(repr((self.start, [event.amounts for event in self.events])))

    @property
    def text(self) -> str:
        """The problem as it is asked, in the phrases of its split."""
        return " ".join(self.sentences)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Of the text: the start, what happens, with other things among it, and the question."""
        return tuple(sentence for sentence, _ in self._told)

    @property
    def others_at(self) -> int | None:
        """Index of the sentence about other things."""
        return next((index for index, (_, counts) in enumerate(self._told) if not counts), None)

    @cached_property
    def _told(self) -> tuple[tuple[str, bool], ...]:
        """The sentences, and whether each is about what counts."""
        rng = random.Random(self.wording)
        phrases = _HELD_OUT if self.split is Split.TEST else _SEEN
        words = {"name": self.name, "things": self.things}
        told = [(rng.choice(phrases.start).format(n=self.start, **words), True)]
        for event in self.events:
            if event.is_hard:
                told.append((rng.choice(phrases.several).format(list=listed(event.amounts), **words), True))
            else:
                kind = phrases.gain if event.amounts[0] > 0 else phrases.loss
                told.append((rng.choice(kind).format(n=abs(event.amounts[0]), **words), True))
        if self.others is not None:
            count, others = self.others
            other = rng.choice([name for name in _NAMES if name != self.name])
            place = rng.randint(1, len(told))
            told.insert(place, (rng.choice(phrases.others).format(n=count, others=others, other=other), False))
        return (*told, (rng.choice(phrases.question).format(**words), True))


def draw_word_problem(rng: random.Random) -> WordProblem:
    """One random problem of two or three steps, of whatever split its numbers say."""
    while True:
        count = rng.randint(2, 3)
        hard = set(rng.sample(range(count), rng.choices(range(len(_HARD_WEIGHTS)), _HARD_WEIGHTS)[0]))
        events, total = [], (start := rng.randint(4, 12))
        for k in range(count):
            if k in hard:
                amounts = tuple(rng.randint(2, 9) for _ in range(rng.randint(3, 4)))
            else:
                amount = rng.randint(2, 9)
                amounts = (-amount if total > amount and rng.random() < 0.5 else amount,)
            total += sum(amounts)
            events.append(Event(amounts=amounts))
        things = rng.choice(_THINGS)
        others = rng.choice([other for other in _THINGS if other != things])
        problem = WordProblem(
            name=rng.choice(_NAMES),
            things=things,
            start=start,
            events=tuple(events),
            others=(rng.randint(2, 12), others) if rng.random() < _OTHER_THINGS else None,
            wording=rng.getrandbits(32),
        )
        if max(problem.counts) <= _MOST_THINGS:
            return problem


def stream_word_problems(rng: random.Random, split: Split) -> Iterator[WordProblem]:
    """Problems of one split without end; repeats are possible."""
    while True:
        problem = draw_word_problem(rng)
        if problem.split == split:
            yield problem


def generate_word_problems(*, seed: int, count: int, split: Split) -> list[WordProblem]:
    """`count` distinct problems of one split, the same for the same seed.

    Raises:
        ValueError: the world seems to have fewer distinct problems than asked for.
    """
    problems: dict[str, WordProblem] = {}
    stream = stream_word_problems(random.Random(seed), split)
    for _ in range(count * _ATTEMPTS_PER_PROBLEM):
        if len(problems) == count:
            break
        problem = next(stream)
        problems.setdefault(problem.text, problem)
    if len(problems) < count:
        raise ValueError(f"count={count}: found only {len(problems)} distinct problems; lower the count")
    return list(problems.values())


def listed(amounts: Sequence[int]) -> str:
    """Numbers as a sentence lists them: `3, 5 and 2`."""
    *first, last = map(str, amounts)
    return f"{', '.join(first)} and {last}" if first else last


def concise_solution(problem: WordProblem, *, from_step: int = 0) -> str:
    """The short way from `from_step` to the boxed answer, one calculation per step."""
    sums = [_at_once(problem, k) for k in range(from_step, len(problem.events))]
    return " ".join([*sums, boxed_answer(problem)])


def boxed_answer(problem: WordProblem) -> str:
    r"""The final answer, as the short form writes it."""
    return f"The answer is \\boxed{{{problem.answer}}}."


def chain_of_thought(problem: WordProblem, rng: random.Random) -> list[Thought]:
    """The verbose chain: restating, each step with its checks, a look at what does not count, the conclusion.

    `rng` decides the wording and how often a step is checked; every calculation in the chain is correct.
    """
    name, things, start = problem.name, problem.things, problem.start
    first, *story, question = problem.sentences
    restated = rng.choice(
        (
            f'Okay, "{first}" So {name} has {start} {things} at first.',
            f'First, what do we know? "{first}" It begins with {start} {things}.',
            f'Okay, we go through it step by step. "{first}" There are {start} {things}.',
        )
    )
    thoughts = [Thought(ThoughtKind.RESTATE, None, restated)]
    events = iter(range(len(problem.events)))
    for index, sentence in enumerate(story, start=1):
        if index == problem.others_at:
            thoughts.append(_detour(problem, sentence, rng))
            continue
        k = next(events)
        about = _hard_thoughts if problem.events[k].is_hard else _easy_thoughts
        thoughts += about(problem, k, sentence, rng)
    closing = rng.choice(
        (
            f'Finally, "{question}" {name} has {problem.answer} {things}. {boxed_answer(problem)}',
            f'Therefore, "{question}" There are {problem.answer} {things}. {boxed_answer(problem)}',
        )
    )
    return [*thoughts, Thought(ThoughtKind.FINAL, None, closing, boxed_answer(problem))]


def steps_worked(thoughts: Sequence[Thought]) -> int:
    """How many steps of the problem these first thoughts of a chain have finished."""
    return sum(thought.kind in (ThoughtKind.HARD, ThoughtKind.EASY) for thought in thoughts)


def _hard_thoughts(problem: WordProblem, k: int, sentence: str, rng: random.Random) -> list[Thought]:
    amounts, after, things = problem.events[k].amounts, problem.counts[k + 1], problem.things
    work = _one_by_one(problem, k)
    opening = rng.choice(
        (
            f'Next, "{sentence}" We add them one by one.',
            f'Next, "{sentence}" That is {listed(amounts)}, and we add them slowly.',
            f'Moving on, "{sentence}" We add one after the other.',
        )
    )
    thoughts = [Thought(ThoughtKind.HARD, k, f"{opening} {work} That makes {after} {things}.", _at_once(problem, k))]
    check = rng.choice(("Wait, is that right? Let us add again.", "Wait, let me check that.", "Hmm, once more."))
    thoughts.append(Thought(ThoughtKind.RECHECK_HARD, k, f"{check} {work} Yes, {after}.", f"So {after}."))
    if rng.random() < _SECOND_CHECK:
        total = sum(amounts)
        over = f"Let me verify it in another way. {problem.counts[k]} + {total} = {after}, so {after} is right."
        thoughts.append(Thought(ThoughtKind.RECHECK_HARD, k, over))
    return thoughts


def _easy_thoughts(problem: WordProblem, k: int, sentence: str, rng: random.Random) -> list[Thought]:
    before, amount, after = problem.counts[k], problem.events[k].amounts[0], problem.counts[k + 1]
    change = f"That is {amount} more" if amount > 0 else f"So {-amount} are taken away"
    now = f"{_at_once(problem, k)} Now there are {after} {problem.things}."
    text = f'{rng.choice(("Next", "Moving on"))}, "{sentence}" {change}. {now}'
    thoughts = [Thought(ThoughtKind.EASY, k, text, _at_once(problem, k))]
    if rng.random() < _CHECK_EASY:
        back = f"{after} {'-' if amount > 0 else '+'} {abs(amount)} = {before}"
        check = rng.choice(("Hmm, let us go back.", "Wait, a quick check."))
        thoughts.append(Thought(ThoughtKind.RECHECK_EASY, k, f"{check} {back}, so it fits."))
    return thoughts


def _detour(problem: WordProblem, sentence: str, rng: random.Random) -> Thought:
    # Begins like every other sentence of the story: what it is about shows only once it has been quoted.
    reason = rng.choice(
        (
            f"Does that matter? No, the question is about the {problem.things} alone, so we leave it out.",
            f"But it does not count {problem.things} of {problem.name}, so it changes nothing.",
        )
    )
    return Thought(ThoughtKind.DETOUR, None, f'{rng.choice(("Next", "Moving on"))}, "{sentence}" {reason}')


def _at_once(problem: WordProblem, k: int) -> str:
    signed = " ".join(f"{'+' if amount > 0 else '-'} {abs(amount)}" for amount in problem.events[k].amounts)
    return f"{problem.counts[k]} {signed} = {problem.counts[k + 1]}."


def _one_by_one(problem: WordProblem, k: int) -> str:
    shown, sums = problem.counts[k], []
    for amount in problem.events[k].amounts:
        sums.append(f"{shown} + {amount} = {shown + amount}")
        shown += amount
    return f"{', then '.join(sums)}."
