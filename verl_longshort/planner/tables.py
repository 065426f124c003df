"""Memory tables: what lies on one GPU of a pool in each phase of a stage's work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from verl_longshort.base.requirements import (
    EngineUse,
    FineTuningWork,
    GenerationWork,
    PolicyUse,
    ReinforcementWork,
    TrainedModel,
)
from verl_longshort.engines.registry import spec_of
from verl_longshort.planner.memory import (
    EngineMemory,
    StateMemory,
    activations,
    cached_tokens,
    engine_memory,
    gathered,
    logits,
    state_memory,
    sync_buffer,
)
from verl_longshort.planner.shapes import ModelShape
from verl_longshort.recipe.assumptions import GIB, Assumed

GENERATING, SENDING, TRAINING = "generating", "sending weights", "training"
RESERVE = "left alone"

ShapeOf = Callable[[str], ModelShape]


@dataclass(frozen=True, kw_only=True)
class CacheRoom:
    """What the KV caches of one copy of an engine hold."""

    engine: EngineUse
    tokens: float


@dataclass(kw_only=True)
class MemoryTable:
    """Bytes on one GPU."""

    title: str
    gpus: int
    """GPUs that look like this."""
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    """Part → phase → bytes; a part that a phase lacks is not there then."""
    host: float = 0.0
    """Host memory that goes with one GPU."""
    caches: dict[str, CacheRoom] = field(default_factory=dict)

    def put(self, part: str, phase: str, size: float) -> None:
        """Note a part; nothing for 0 bytes."""
        if size > 0:
            self.parts.setdefault(part, {})[phase] = size

    @property
    def phases(self) -> list[str]:
        """In the order of their first mention."""
        return list(dict.fromkeys(phase for sizes in self.parts.values() for phase in sizes))

    def total(self, phase: str) -> float:
        """All parts of a phase."""
        return sum(sizes.get(phase, 0.0) for sizes in self.parts.values())


@dataclass(frozen=True, kw_only=True)
class TableMaker:
    """Makes the tables of a stage's work.

    Args:
        shape_of: the shape of a model by its name.
        gpu: bytes of one GPU.
    """

    shape_of: ShapeOf
    gpu: float
    assume: Assumed

    def reinforce(self, work: ReinforcementWork) -> list[MemoryTable]:
        """One table for each pool of GPUs."""
        if work.shared_pool:
            return [self._pool("each GPU", dict(work.policies))]
        return [self._pool(f"each GPU of {role}", {role: one}) for role, one in work.policies.items()]

    def fine_tune(self, work: FineTuningWork) -> list[MemoryTable]:
        """One table."""
        table = MemoryTable(title="each GPU", gpus=work.trained.gpus)
        self._update(table, "", TRAINING, work.trained)
        self._reserve(table)
        return [table]

    def generate(self, work: GenerationWork) -> list[MemoryTable]:
        """One table for the engines that are on GPUs."""
        engines = [engine for engine in work.engines if engine.gpus]
        if not engines:
            return []
        table = MemoryTable(title="each GPU", gpus=max(engine.gpus for engine in engines))
        for number, engine in enumerate(engines):
            prefix = f"{number + 1}: " if len(engines) > 1 else ""
            self._awake(table, prefix, [GENERATING], engine)
        self._reserve(table)
        return [table]

    def _pool(self, title: str, policies: Mapping[str, PolicyUse]) -> MemoryTable:
        table = MemoryTable(title=title, gpus=max(policy.engine.gpus for policy in policies.values()))
        trained = {role: p.trained for role, p in policies.items() if p.trained is not None}
        always = [GENERATING, SENDING] if trained else [GENERATING]
        # policies send one after the other: when the last one does, the others' engines are wide awake
        sender = list(trained)[-1] if trained else None
        for role, policy in policies.items():
            prefix = f"{role}: " if role else ""
            without_cache = [SENDING] if role == sender and policy.engine.sleeps else []
            self._awake(table, prefix, always, policy.engine, without_cache)
            if policy.trained is not None:
                self._policy(table, prefix, role, trained, policy, sends=role == sender)
        if trained:
            buffers = [sync_buffer(one, self.shape_of(one.model)) for one in trained.values()]
            table.put("weights on their way", SENDING, max(buffers))
        self._reserve(table)
        return table

    def _policy(
        self,
        table: MemoryTable,
        prefix: str,
        role: str,
        trained: Mapping[str, TrainedModel],
        policy: PolicyUse,
        *,
        sends: bool,
    ) -> None:
        own = trained[role]
        self._update(table, prefix, _learns(role), own)
        resting = self._states(own)
        others = [_learns(other) for other in trained if other != role]
        for phase in (GENERATING, *others, SENDING):
            table.put(f"{prefix}weights, {_precision(own)}", phase, sum(s.weights_at_rest for s in resting))
            table.put(f"{prefix}optimizer", phase, sum(s.moments_at_rest for s in resting))
        if sends:
            table.put(f"{prefix}weights, {_precision(own)}", SENDING, resting[0].weights)
        asleep = self._engine(policy.engine).asleep
        for phase in map(_learns, trained):
            table.put(f"{prefix}engine asleep", phase, asleep)

    def _update(self, table: MemoryTable, prefix: str, phase: str, trained: TrainedModel) -> None:
        shape, states = self.shape_of(trained.model), self._states(trained)
        table.put(f"{prefix}weights, {_precision(trained)}", phase, sum(s.weights for s in states))
        table.put(f"{prefix}gradients", phase, sum(s.gradients for s in states))
        table.put(f"{prefix}optimizer", phase, sum(s.moments for s in states))
        table.put(f"{prefix}gathered layers", phase, gathered(trained, shape))
        table.put(f"{prefix}activations", phase, activations(trained, shape))
        table.put(f"{prefix}logits", phase, logits(trained, shape))
        table.host += sum(s.host for s in states)

    def _states(self, trained: TrainedModel) -> list[StateMemory]:
        """Of the policy, and of its critic."""
        models = [trained.model] if trained.critic is None else [trained.model, trained.critic]
        return [state_memory(trained, self.shape_of(model)) for model in models]

    def _awake(
        self,
        table: MemoryTable,
        prefix: str,
        phases: Sequence[str],
        engine: EngineUse,
        without_cache: Sequence[str] = (),
    ) -> None:
        memory = self._engine(engine)
        for phase in phases:
            table.put(f"{prefix}engine weights", phase, memory.weights)
            table.put(f"{prefix}engine workspace", phase, memory.workspace)
            if phase not in without_cache:
                table.put(f"{prefix}KV cache", phase, memory.kv_cache)
        if spec_of(engine.name).reserves_memory:
            tokens = cached_tokens(engine, self.shape_of(engine.model), memory)
            table.caches[f"{prefix}KV cache"] = CacheRoom(engine=engine, tokens=tokens)

    def _engine(self, engine: EngineUse) -> EngineMemory:
        return engine_memory(engine, self.shape_of(engine.model), self.gpu, self.assume)

    def _reserve(self, table: MemoryTable) -> None:
        for phase in table.phases:
            table.put(RESERVE, phase, self.assume.reserve_gb * GIB)


def _learns(role: str) -> str:
    return f"{role} learns" if role else "learning"


def _precision(trained: TrainedModel) -> str:
    return "fp32" if trained.state_bytes == 4 else "bf16"
