"""What one command of a recipe will need and make, as a dry run finds it out. Plain data, no verl.

A command fills in a `Requirements` from its checked settings; the planner (`planner/`) turns those of all stages
into memory, disk and hours. All sizes are what the configuration asks for; what a run will really use of
them is the planner's assumption.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Product:
    """A file or folder that a command will write."""

    path: str
    records: int | None = None
    """Of a data file: how many it will have at most; None: not known before the run."""
    model: str | None = None
    """Of a model folder: path or name of the model it is trained from, whose shape and tokenizer it has."""
    config: Mapping[str, Any] | None = None
    """Of a model that is made from nothing: its shape under the names of a Hugging Face config.json."""
    bytes_per_parameter: float = 0.0
    """Of a model folder: what it will hold on the disk."""


@dataclass(frozen=True, kw_only=True)
class EngineUse:
    """A model that generates."""

    model: str
    name: str
    """vllm, transformers, or endpoint (somebody else's server: no GPU of ours)."""
    gpus: int = 0
    """All GPUs that hold copies of the model; 0: the CPU."""
    tensor_parallel: int = 1
    memory_share: float = 0.9
    """Of a GPU's memory, for weights, KV cache and workspace (vLLM's gpu_memory_utilization)."""
    max_length: int = 0
    """Tokens of the longest sequence."""
    max_num_seqs: int = 1
    bytes_per_value: int = 2
    sleeps: bool = False
    """Weights and KV cache leave the GPU while models are trained on it."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model under FSDP: how it is stored, and the largest piece of work that one GPU gets at once."""

    model: str
    gpus: int
    """In the whole training group."""
    shards: int
    """GPUs over which one copy is spread."""
    sequence_parallel: int = 1
    state_bytes: int = 4
    """Per value of parameters, gradients and optimizer moments: 4 (fp32) or 2 (bf16), verl's model_dtype."""
    compute_bytes: int = 2
    """Per value in the forward and backward pass."""
    optimizer_values: float = 2.0
    """Moments per parameter, in units of the state's values: 2 for Adam, 0.5 for 8-bit Adam over fp32."""
    param_offload: bool = False
    optimizer_offload: bool = False
    cpu_policy: bool = False
    """FSDP2's offload policy: parameters, gradients and optimizer stay in host memory also while training."""
    lora_rank: int = 0
    merges: bool = False
    """Engines get the weights with the adapters merged; meanwhile a copy of the weights lies in host memory."""
    tokens: int = 0
    """Of the largest micro batch on one GPU."""
    forward_tokens: int = 0
    """Of the largest micro batch that is only scored (log-probs), on one GPU; 0: nothing is."""
    checkpointing: bool = True
    """Gradient checkpointing."""
    activation_offload: bool = False
    fused_head: bool = False
    """A fused kernel computes log-probs without ever holding the logits."""
    copies_logits: bool = False
    """A temperature other than 1 divides the logits, which makes a second copy."""
    entropy: bool = False
    """Entropy of every position is part of the update."""
    chunked_entropy: bool = False
    compiled: bool = True
    """torch.compile fuses the entropy, which then needs no buffers of its own."""
    keeps_gradients_whole: bool = False
    """Unsharded gradients stay between micro batches (use_no_sync_for_gradient_accumulation)."""
    reference: bool = False
    """A frozen copy scores the same rows; verl keeps its parameters in host memory."""
    critic: str | None = None
    """Model of the critic, which is stored like the policy."""


@dataclass(frozen=True, kw_only=True)
class FileWork:
    """Work that needs no model of any size: files in, files out."""

    kind: Literal["plain"] = "plain"


@dataclass(frozen=True, kw_only=True)
class GenerationWork:
    """Generation from prompts, such as weighing, rewriting and evaluation."""

    kind: Literal["generate"] = "generate"
    engines: tuple[EngineUse, ...] = ()
    records: int | None = None
    samples: int = 1
    """Per record, or per thought where `per_thought`."""
    per_thought: bool = False
    """Once for each thought of a record and once before the first."""
    new_tokens: int = 0
    """Of one answer, at most."""


@dataclass(frozen=True, kw_only=True)
class FineTuningWork:
    """Supervised fine-tuning."""

    kind: Literal["fine_tune"] = "fine_tune"
    trained: TrainedModel
    records: int | None
    epochs: int
    record_tokens: int
    """Of one record, at most."""


@dataclass(frozen=True, kw_only=True)
class PolicyUse:
    """One policy of a reinforcement-learning run."""

    engine: EngineUse
    trained: TrainedModel | None
    """None: it only serves."""
    updates: int
    """Training steps in which it learns."""
    checkpoint_bytes: float = 0.0
    """Per parameter and checkpoint."""
    adapter_bytes: float = 0.0
    """Per value of its LoRA adapters and checkpoint."""
    checkpoints: int | None = None
    """Of its own on the disk at the same time; None: as many as the run has."""


@dataclass(frozen=True, kw_only=True)
class ReinforcementWork:
    """Reinforcement learning by joint trajectories, of a pair or of one policy."""

    kind: Literal["reinforce"] = "reinforce"
    policies: Mapping[str, PolicyUse]
    shared_pool: bool
    """All policies on the same GPUs."""
    steps: int
    prompts: int
    """Per step."""
    samples: int
    """Trajectories per prompt."""
    rows: int = 1
    """Of a trajectory, that a policy learns from: one for each role that it plays."""
    prompt_tokens: int
    """Of one prompt, at most."""
    new_tokens: int
    """Of one trajectory, at most."""
    validations: int
    validation_problems: int | None
    checkpoints: int
    """Kept on the disk at the same time."""


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """Everything about one command."""

    command: str
    work: FileWork | GenerationWork | FineTuningWork | ReinforcementWork = field(default_factory=FileWork)
    gpus_per_node: int = 0
    nodes: int = 1
    products: tuple[Product, ...] = ()
    packages: tuple[str, ...] = ()
    """Importable names beyond what every installation has, such as vllm."""
    checked: bool = True
    """False: the command knows no dry run, and nothing of it was looked at."""
    notes: tuple[str, ...] = ()
    """What a user should know about it, in full sentences without a full stop."""
