"""What lies on one GPU, part by part and phase by phase: models that verl trains under FSDP, engines that generate.

How verl 0.9.1's FSDP engine stores a policy (`workers/engine/fsdp/transformer_impl.py`):

* parameters, gradients and optimizer moments are sharded in `model_dtype` (fp32 by default, so 16 bytes per
  parameter with Adam; there is no separate master copy); a layer is gathered in bf16 when it is computed;
* gradients exist during an update only; with param_offload and optimizer_offload the rest leaves the GPU
  between updates and comes back for one; with FSDP2's offload_policy it never lies there;
* the reference's parameters always lie in host memory and pass through the GPU layer by layer.

All results are bytes. `TableMaker` puts the parts together.
"""

from collections.abc import Mapping, Sequence
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
from verl_longshort.planner.models import ModelShape, ShapeOf
from verl_longshort.recipe.assumptions import GIB, Assumed

FP32 = 4
GENERATING, SENDING, TRAINING = "generating", "sending weights", "training"
RESERVE = "left alone"


@dataclass(frozen=True, kw_only=True)
class StateMemory:
    """A trained model on one GPU: what is stored between updates and during one, and in the host."""

    weights: float
    gradients: float
    moments: float
    weights_at_rest: float
    moments_at_rest: float
    host: float
    """Host memory that this GPU's shard takes, the reference and copies of weights included."""


def state_memory(trained: TrainedModel, shape: ModelShape) -> StateMemory:
    """Stored state of one policy, or of a critic, on one GPU."""
    total = shape.parameters
    adapters = shape.adapters(trained.lora_rank)
    learnt = adapters or total
    values = total + adapters
    one = trained.state_bytes / trained.shards
    weights, gradients = values * one, learnt * one
    moments = learnt * one * trained.optimizer_values
    # with LoRA the reference is the policy without its adapters
    aside = total * one * ((trained.reference and not trained.lora_rank) + trained.merges)
    if trained.cpu_policy:
        host = weights + gradients + moments + aside
        return StateMemory(weights=0, gradients=0, moments=0, weights_at_rest=0, moments_at_rest=0, host=host)
    rest_w, rest_m = weights * (not trained.param_offload), moments * (not trained.optimizer_offload)
    return StateMemory(
        weights=weights,
        gradients=gradients,
        moments=moments,
        weights_at_rest=rest_w,
        moments_at_rest=rest_m,
        host=weights - rest_w + moments - rest_m + aside,
    )


def checkpoint_size(policy: PolicyUse, shape: ModelShape) -> float:
    """Bytes of one checkpoint of a policy."""
    adapters = shape.adapters(policy.trained.lora_rank) if policy.trained else 0
    return policy.checkpoint_bytes * shape.parameters + policy.adapter_bytes * adapters


def gathered(trained: TrainedModel, shape: ModelShape) -> float:
    """Unsharded parameters and gradients while a model is computed.

    FSDP holds the layer in work and the next one, the gradient of one, and the embedding with the output
    layer, which belong to no layer and stay until the end of the backward pass.
    """
    layers = 3 * shape.layer
    whole = shape.parameters - shape.ends if trained.keeps_gradients_whole else 0
    return (layers + 2 * shape.ends + whole) * trained.compute_bytes


def activations(trained: TrainedModel, shape: ModelShape) -> float:
    """Kept for the backward pass, at the largest micro batch, with the working set of one layer's.

    Norms keep an fp32 copy, attention is flash attention, the MLP is gated.
    """
    tokens, size = trained.tokens, trained.compute_bytes
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms = 2 * shape.hidden * (FP32 + 2 * size)
    # before and after the rotation, then output and its projection
    attention = size * (2 * (wide + narrow) + narrow + wide + shape.hidden)
    mlp = size * (4 * shape.intermediate + shape.hidden)
    layer: float = tokens * (norms + attention + mlp)
    backward = tokens * size * (3 * shape.intermediate + 2 * shape.hidden)
    if not trained.checkpointing:
        return shape.layers * layer + backward
    borders = 2 if trained.activation_offload else shape.layers
    return borders * tokens * shape.hidden * size + layer + backward


def logits(trained: TrainedModel, shape: ModelShape) -> float:
    """All buffers of one value per token and word, at their largest, of an update and of scoring."""
    if trained.fused_head:
        return 0.0
    size = trained.compute_bytes
    # autocast makes the entropy fp32: the logits once more, their softmax, and the product of both
    entropy = 0 if trained.compiled or trained.chunked_entropy else 3 * FP32
    # the gradient goes where the logits were (flash attention's cross-entropy); divided by the temperature they are
    # there twice, and the gradient of that is a third
    update = size * (3 if trained.copies_logits else 1)
    if trained.entropy:
        # two gradients, neither in place
        update += 2 * size + entropy
    # the trainer reports the entropy of what it scores
    scoring = size * (1 + trained.copies_logits) + entropy
    return float(max(trained.tokens * update, trained.forward_tokens * scoring) * shape.vocabulary)


@dataclass(frozen=True, kw_only=True)
class EngineMemory:
    """An engine's share of one GPU."""

    weights: float
    workspace: float
    kv_cache: float
    """Negative when weights and workspace do not fit in the share."""
    asleep: float
    """What stays while models are trained: all of it where the engine does not sleep."""


def engine_memory(engine: EngineUse, shape: ModelShape, gpu: float, assume: Assumed) -> EngineMemory:
    """What the engine holds of a GPU with `gpu` bytes.

    vLLM takes its share at once and gives the KV cache what is left of it; other engines grow with their
    requests, so theirs is the largest that the settings allow.
    """
    weights = shape.parameters * engine.bytes_per_value / engine.tensor_parallel
    reserves = spec_of(engine.name).reserves_memory
    workspace = assume.engine_workspace_gb * GIB if reserves else 0.0
    if reserves:
        cache = engine.memory_share * gpu - weights - workspace
    else:
        cache = float(engine.max_num_seqs * engine.max_length * shape.kv_values * engine.bytes_per_value)
    awake = weights + workspace + max(cache, 0.0)
    asleep = assume.sleeping_engine_gb * GIB if reserves and engine.sleeps else awake
    return EngineMemory(weights=weights, workspace=workspace, kv_cache=cache, asleep=asleep)


def cached_tokens(engine: EngineUse, shape: ModelShape, memory: EngineMemory) -> float:
    """Tokens that the KV caches of one copy of the engine hold."""
    heads = max(shape.kv_heads / engine.tensor_parallel, 1.0)
    per_gpu = shape.kv_values / shape.kv_heads * heads * engine.bytes_per_value
    return max(memory.kv_cache, 0.0) / per_gpu


def sync_buffer(trained: TrainedModel, shape: ModelShape) -> float:
    """While a policy's weights go to its engine: the largest tensor whole, and verl's bucket, of 2 GiB or more."""
    largest = shape.embedding * trained.state_bytes
    return largest + max(largest, 2 * GIB)


@dataclass(frozen=True, kw_only=True)
class CacheRoom:
    """What the KV caches of one copy of an engine hold."""

    engine: EngineUse
    tokens: float


@dataclass(kw_only=True)
class MemoryTable:
    """Bytes on one GPU of a pool, in each phase of a stage's work."""

    title: str
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
    """Makes the tables of a stage's work, for GPUs with `gpu` bytes."""

    shape_of: ShapeOf
    gpu: float
    assume: Assumed

    def reinforce(self, work: ReinforcementWork) -> list[MemoryTable]:
        """One table for each pool of GPUs."""
        if work.shared_pool:
            return [self._pool("each GPU", work.policies)]
        return [self._pool(f"each GPU of {role}", {role: one}) for role, one in work.policies.items()]

    def fine_tune(self, work: FineTuningWork) -> list[MemoryTable]:
        """One table."""
        table = MemoryTable(title="each GPU")
        self._update(table, "", TRAINING, work.trained)
        return [self._with_reserve(table)]

    def generate(self, work: GenerationWork) -> list[MemoryTable]:
        """One table for the engines that are on GPUs."""
        engines = [engine for engine in work.engines if engine.gpus]
        if not engines:
            return []
        table = MemoryTable(title="each GPU")
        for number, engine in enumerate(engines, start=1):
            self._awake(table, f"{number}: " if len(engines) > 1 else "", [GENERATING], engine)
        # vLLM counts contexts and buffers into its share, and nothing else is on the GPU
        whole = all(spec_of(engine.name).reserves_memory for engine in engines)
        return [table if whole else self._with_reserve(table)]

    def _pool(self, title: str, policies: Mapping[str, PolicyUse]) -> MemoryTable:
        table = MemoryTable(title=title)
        trained = {role: p.trained for role, p in policies.items() if p.trained is not None}
        # policies send one after the other: when the last one does, the others' engines are wide awake
        sender = list(trained)[-1] if trained else None
        for role, policy in policies.items():
            prefix = f"{role}: " if role else ""
            without_cache = [SENDING] if role == sender and policy.engine.sleeps else []
            self._awake(table, prefix, [GENERATING, SENDING] if trained else [GENERATING], policy.engine, without_cache)
            if policy.trained is not None:
                self._update(table, prefix, _learns(role), policy.trained)
                self._rest(table, prefix, [_learns(r) for r in trained if r != role], policy.trained, role == sender)
                for phase in map(_learns, trained):
                    table.put(f"{prefix}engine asleep", phase, self._engine(policy.engine).asleep)
        if trained:
            buffers = [sync_buffer(one, self.shape_of(one.model)) for one in trained.values()]
            table.put("weights on their way", SENDING, max(buffers))
        return self._with_reserve(table)

    def _rest(
        self, table: MemoryTable, prefix: str, others_learn: Sequence[str], trained: TrainedModel, sends: bool
    ) -> None:
        """A policy that does not learn; its weights are there when it sends them."""
        states = self._states(trained)
        for phase in (GENERATING, *others_learn, SENDING):
            table.put(f"{prefix}weights, {_precision(trained)}", phase, sum(s.weights_at_rest for s in states))
            table.put(f"{prefix}optimizer", phase, sum(s.moments_at_rest for s in states))
        if sends:
            table.put(f"{prefix}weights, {_precision(trained)}", SENDING, states[0].weights)

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

    def _with_reserve(self, table: MemoryTable) -> MemoryTable:
        for phase in table.phases:
            table.put(RESERVE, phase, self.assume.reserve_gb * GIB)
        return table


def _learns(role: str) -> str:
    return f"{role} learns" if role else "learning"


def _precision(trained: TrainedModel) -> str:
    return "fp32" if trained.state_bytes == 4 else "bf16"
