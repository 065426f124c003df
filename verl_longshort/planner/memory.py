"""What lies on one GPU, part by part: models that verl trains under FSDP, and engines that generate.

How verl 0.9.1's FSDP engine stores a policy (`workers/engine/fsdp/transformer_impl.py`):

* parameters, gradients and optimizer moments are sharded in `model_dtype` (fp32 by default, so 16 bytes per
  parameter with Adam; there is no separate master copy); a layer is gathered in bf16 when it is computed;
* gradients exist during an update only; with param_offload and optimizer_offload the rest leaves the GPU
  between updates and comes back for one; with FSDP2's offload_policy it never lies there;
* the reference's parameters always lie in host memory and pass through the GPU layer by layer.

All results are bytes.
"""

from dataclasses import dataclass

from verl_longshort.base.requirements import EngineUse, TrainedModel
from verl_longshort.engines.registry import spec_of
from verl_longshort.planner.shapes import ModelShape
from verl_longshort.recipe.assumptions import GIB, Assumed

FP32 = 4


@dataclass(frozen=True, kw_only=True)
class StateMemory:
    """A trained model on one GPU: what is stored between updates and during one, and in the host."""

    weights: float
    gradients: float
    moments: float
    weights_at_rest: float
    moments_at_rest: float
    host: float
    """Host memory that this GPU's shard takes, reference included."""

    @property
    def learning(self) -> float:
        """During an update."""
        return self.weights + self.gradients + self.moments

    @property
    def at_rest(self) -> float:
        """Between updates."""
        return self.weights_at_rest + self.moments_at_rest


def state_memory(trained: TrainedModel, shape: ModelShape) -> StateMemory:
    """Stored state of one policy, or of a critic, on one GPU."""
    total = shape.parameters
    adapters = shape.adapters(trained.lora_rank)
    learnt = adapters or total
    values = total + adapters
    one = trained.state_bytes / trained.shards
    weights, gradients = values * one, learnt * one
    moments = learnt * one * trained.optimizer_values
    reference = total * one if trained.reference and not trained.lora_rank else 0.0
    if trained.cpu_policy:
        host = weights + gradients + moments + reference
        return StateMemory(weights=0, gradients=0, moments=0, weights_at_rest=0, moments_at_rest=0, host=host)
    rest_w, rest_m = weights * (not trained.param_offload), moments * (not trained.optimizer_offload)
    return StateMemory(
        weights=weights,
        gradients=gradients,
        moments=moments,
        weights_at_rest=rest_w,
        moments_at_rest=rest_m,
        host=weights - rest_w + moments - rest_m + reference,
    )


def gathered(trained: TrainedModel, shape: ModelShape) -> float:
    """Unsharded parameters and gradients while a model is computed.

    FSDP holds the layer in work and the next one, the gradient of one, and the embedding with the output
    layer, which belong to no layer and stay until the end of the backward pass.
    """
    layers = 3 * shape.layer
    whole = shape.parameters - shape.ends if trained.keeps_gradients_whole else 0
    return (layers + 2 * shape.ends + whole) * trained.compute_bytes


def activations(trained: TrainedModel, shape: ModelShape) -> float:
    """Kept for the backward pass, at the largest micro batch, with the working set of one layer's."""
    tokens, size = trained.tokens, trained.compute_bytes
    one: float = tokens * _layer_activations(shape, size)
    backward = tokens * size * (3 * shape.intermediate + 2 * shape.hidden)
    if not trained.checkpointing:
        return shape.layers * one + backward
    borders = 2 if trained.activation_offload else shape.layers
    return borders * tokens * shape.hidden * size + one + backward


def _layer_activations(shape: ModelShape, size: int) -> int:
    """Bytes per token: norms keep an fp32 copy, attention is flash attention, the MLP is gated."""
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms = 2 * shape.hidden * (FP32 + 2 * size)
    # before and after the rotation, then output and its projection
    attention = size * (2 * (wide + narrow) + narrow + wide + shape.hidden)
    mlp = size * (4 * shape.intermediate + shape.hidden)
    return norms + attention + mlp


def logits(trained: TrainedModel, shape: ModelShape) -> float:
    """All buffers of one value per token and word, at their largest, of an update and of scoring."""
    if trained.fused_head:
        return 0.0
    updating = trained.tokens * _bytes_of_update(trained)
    return float(max(updating, trained.forward_tokens * _bytes_of_scoring(trained)) * shape.vocabulary)


def _bytes_of_update(trained: TrainedModel) -> int:
    """Per token and word. The gradient goes where the logits were (flash attention's cross-entropy)."""
    size = trained.compute_bytes
    # divided by the temperature, and the gradient of that
    total = size * (3 if trained.copies_logits else 1)
    if trained.entropy:
        # two gradients, neither in place
        total += 2 * size + _bytes_of_entropy(trained)
    return total


def _bytes_of_scoring(trained: TrainedModel) -> int:
    # the trainer reports the entropy of what it scores
    return trained.compute_bytes * (1 + trained.copies_logits) + _bytes_of_entropy(trained)


def _bytes_of_entropy(trained: TrainedModel) -> int:
    """Autocast makes it fp32: the logits once more, their softmax, and the product of both."""
    return 0 if trained.compiled or trained.chunked_entropy else 3 * FP32


@dataclass(frozen=True, kw_only=True)
class EngineMemory:
    """An engine's share of one GPU."""

    weights: float
    workspace: float
    kv_cache: float
    """Negative when weights and workspace do not fit in the share."""
    asleep: float

    @property
    def awake(self) -> float:
        """All of it."""
        return self.weights + self.workspace + max(self.kv_cache, 0.0)


def engine_memory(engine: EngineUse, shape: ModelShape, gpu: float, assume: Assumed) -> EngineMemory:
    """What the engine holds of a GPU with `gpu` bytes.

    vLLM takes its share at once and gives the KV cache what is left of it; other engines grow with their
    requests, so theirs is the largest that the settings allow.
    """
    weights = shape.parameters * engine.bytes_per_value / engine.tensor_parallel
    if not spec_of(engine.name).reserves_memory:
        tokens = engine.max_num_seqs * engine.max_length
        cache = float(tokens * shape.kv_values * engine.bytes_per_value)
        return EngineMemory(weights=weights, workspace=0.0, kv_cache=cache, asleep=weights + cache)
    workspace = assume.engine_workspace_gb * GIB
    cache = engine.memory_share * gpu - weights - workspace
    awake = weights + workspace + max(cache, 0.0)
    return EngineMemory(
        weights=weights,
        workspace=workspace,
        kv_cache=cache,
        asleep=assume.sleeping_engine_gb * GIB if engine.sleeps else awake,
    )


def cached_tokens(engine: EngineUse, shape: ModelShape, memory: EngineMemory) -> float:
    """Tokens that the KV caches of one copy of the engine hold."""
    heads = max(shape.kv_heads / engine.tensor_parallel, 1.0)
    per_gpu = shape.kv_values / shape.kv_heads * heads * engine.bytes_per_value
    return max(memory.kv_cache, 0.0) / per_gpu


def sync_buffer(trained: TrainedModel, shape: ModelShape) -> float:
    """While a policy's weights go to its engine: the largest tensor whole, and verl's bucket of 2 GiB."""
    return shape.embedding * trained.state_bytes + 2 * GIB
