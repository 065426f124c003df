"""One step of reinforcement learning at scale, simulated from its parts: how long it takes and what idles.

Generation is simulated turn by turn. A GPU holds an engine of each policy (shared pools) or of one (separate pools);
a decoding step of an engine takes `latency_s`, whatever it holds, and `row_s` more for each row, and engines of one
GPU decode in turn. A turn goes to the GPU with the fewest rows of those that hold its policy, and the next one begins
when it ends. What is new of its prompt is computed first, and nothing is decoded on that GPU meanwhile: the partner's
turn, and in a role's first turn the problem with its system prompt; the rest is in the engine's prefix cache.
Learning is so many GPU seconds, divided by the GPUs that learn: those of both pools, or of the learner's own.

Synchronous: all GPUs generate, then the learner's learn. One step off: some GPUs generate the next step's
trajectories while the others learn from the last one's, divided so that both take about as long. In `overhead_s` of
each step GPUs do neither.

Left out: the agent loop, the network, tensor parallelism, a limit on rows, and what learning loses on many GPUs.
"""

import heapq
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from longshort_reward.protocol import ROLES, Role

_DIVISIONS = 3
"""Tries to divide GPUs between generating and learning: fewer that generate hold more rows each and do more."""

Turns = Sequence[int]
"""Tokens of each turn of a trajectory; the long role has the first one, then roles alternate."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How long a decoding step takes, and a token of a prompt."""

    latency_s: float
    row_s: float
    prompt_token_s: float


@dataclass(frozen=True, kw_only=True)
class StepParts:
    """What a step consists of."""

    trajectories: Sequence[Turns]
    engines: Mapping[Role, Engine]
    prompt_tokens: Mapping[Role, float]
    """Of a role's first request: system prompt and problem, without the partner's turn."""
    learning_gpu_s: float
    """GPU seconds in which learners learn."""
    together: bool
    """Both policies learn in the step; otherwise one, and with separate pools the other's GPUs wait."""
    overhead_s: float

    @property
    def tokens(self) -> int:
        """Generated ones."""
        return sum(map(sum, self.trajectories))


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """A simulated step."""

    seconds: float
    generating_s: float
    learning_s: float
    tokens_per_s: float
    idle: float
    """Share of the GPUs' time in which they neither hold a row nor learn."""


def simulate(parts: StepParts, gpus: int, *, separate: bool, one_step_off: bool) -> StepTime:
    """A step on so many GPUs, an even number of at least 4 where they are divided."""
    # with separate pools, one learner has half of the GPUs that learn
    learner_share = 0.5 if separate and not parts.together else 1.0
    seconds, busy_gpu_s = generate(parts, gpus, separate=separate)
    made = _step(parts, gpus, seconds, parts.learning_gpu_s / (learner_share * gpus), busy_gpu_s, overlap=False)
    if not one_step_off:
        return made
    unit, tried, generating = 2 if separate else 1, dict[int, StepTime](), gpus
    for _ in range(_DIVISIONS):
        work = seconds * generating
        share = work / max(work + parts.learning_gpu_s / learner_share, 1e-9)
        generating = min(max(unit * round(gpus * share / unit), unit), gpus - unit)
        if generating in tried:
            break
        seconds, busy_gpu_s = generate(parts, generating, separate=separate)
        learning = parts.learning_gpu_s / (learner_share * (gpus - generating))
        tried[generating] = _step(parts, gpus, seconds, learning, busy_gpu_s, overlap=True)
    return min(tried.values(), key=lambda step: step.seconds)


def _step(
    parts: StepParts, gpus: int, generating: float, learning: float, busy_gpu_s: float, *, overlap: bool
) -> StepTime:
    whole = (max(generating, learning) if overlap else generating + learning) + parts.overhead_s
    return StepTime(
        seconds=whole,
        generating_s=generating,
        learning_s=learning,
        tokens_per_s=parts.tokens / whole,
        idle=1 - (busy_gpu_s + parts.learning_gpu_s) / (gpus * whole),
    )


def generate(parts: StepParts, gpus: int, *, separate: bool) -> tuple[float, float]:
    """Seconds until the last trajectory ends, and GPU seconds in which GPUs hold rows."""
    held = [(role,) for role in ROLES] if separate else [ROLES]
    servers = [_Gpu(parts.engines, held[number % len(held)]) for number in range(gpus)]
    loads = {role: _Loads([gpu for gpu in servers if role in gpu.roles]) for role in ROLES}
    events: list[tuple[float, int, _Gpu, int]] = []
    order = itertools.count()

    def ask(now: float, row: tuple[int, int]) -> None:
        trajectory, turn = row
        role, tokens = ROLES[turn % 2], parts.trajectories[trajectory]
        new = (parts.prompt_tokens[role] if turn < len(ROLES) else 0) + (tokens[turn - 1] if turn else 0)
        gpu = loads[role].least(role)
        gpu.add(now, role, tokens[turn], row, prompt_s=new * parts.engines[role].prompt_token_s)
        note(gpu)

    def note(gpu: "_Gpu") -> None:
        for role in gpu.roles:
            loads[role].note(gpu, role)
        if gpu.rows:
            heapq.heappush(events, (gpu.next_end, next(order), gpu, gpu.version))

    for trajectory in range(len(parts.trajectories)):
        ask(0.0, (trajectory, 0))
    now = 0.0
    while events:
        at, _, gpu, version = heapq.heappop(events)
        if version != gpu.version:
            continue
        now = at
        trajectory, turn = gpu.end(now)
        note(gpu)
        if turn + 1 < len(parts.trajectories[trajectory]):
            ask(now, (trajectory, turn + 1))
    return now, sum(gpu.busy_s for gpu in servers)


def draw_trajectories(
    count: int, *, tokens: float, spread: float, turns: float, long_share: float, most: int, seed: int = 0
) -> list[list[int]]:
    """Ragged trajectories: lengths are log-normal with the mean `tokens`, and numbers of turns geometric from 2 on.

    Args:
        spread: standard deviation of the logarithm of a length.
        turns: their mean, at least 2; a number of turns is even.
        long_share: of a trajectory's tokens, those of the long role.
        most: tokens of a trajectory.
    """
    rng = random.Random(seed)
    again = max(0.0, 1 - 2 / turns)
    made = []
    for _ in range(count):
        length = min(most, tokens * rng.lognormvariate(-(spread**2) / 2, spread))
        pairs = 1
        while rng.random() < again:
            pairs += 1
        shares = (long_share, 1 - long_share)
        made.append([max(1, round(length * shares[turn % 2] / pairs)) for turn in range(2 * pairs)])
    return made


class _Gpu:
    """A GPU with its engines. All rows advance alike, so time is counted in tokens of a row (`_at`)."""

    def __init__(self, engines: Mapping[Role, Engine], roles: Sequence[Role]) -> None:
        self.roles = roles
        self.rows: list[tuple[float, int, Role, tuple[int, int]]] = []
        self.counts = dict.fromkeys(roles, 0)
        self.busy_s = 0.0
        self.version = 0
        self._engines = engines
        self._order = itertools.count()
        self._at = 0.0
        self._since = 0.0
        # until then it computes prompts
        self._prompts_until = 0.0

    @property
    def token_s(self) -> float:
        """Seconds in which every row gets a token."""
        used = ((self._engines[role], count) for role, count in self.counts.items() if count)
        return sum(engine.latency_s + count * engine.row_s for engine, count in used)

    @property
    def next_end(self) -> float:
        """When the next row ends if nothing comes in between."""
        return max(self._since, self._prompts_until) + (self.rows[0][0] - self._at) * self.token_s

    def add(self, now: float, role: Role, tokens: int, row: tuple[int, int], *, prompt_s: float) -> None:
        self._advance(now)
        self._prompts_until = max(now, self._prompts_until) + prompt_s
        heapq.heappush(self.rows, (self._at + tokens, next(self._order), role, row))
        self.counts[role] += 1

    def end(self, now: float) -> tuple[int, int]:
        """Take the row out that ends now."""
        self._advance(now)
        self._at, _, role, row = heapq.heappop(self.rows)
        self.counts[role] -= 1
        return row

    def _advance(self, now: float) -> None:
        if self.rows:
            self.busy_s += now - self._since
            self._at += max(0.0, now - max(self._since, self._prompts_until)) / self.token_s
        self._since = now
        self.version += 1


@dataclass
class _Loads:
    """The GPUs that hold a policy, by their rows of it; entries that no longer hold are passed over."""

    gpus: Sequence[_Gpu]
    _heap: list[tuple[int, int, _Gpu]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._heap = [(0, next(self._order), gpu) for gpu in self.gpus]

    def least(self, role: Role) -> _Gpu:
        while self._heap[0][0] != self._heap[0][2].counts[role]:
            heapq.heappop(self._heap)
        return self._heap[0][2]

    def note(self, gpu: _Gpu, role: Role) -> None:
        heapq.heappush(self._heap, (gpu.counts[role], next(self._order), gpu))
