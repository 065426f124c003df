"""Shapes of models of the Llama and Qwen2 families, and what can be counted from them.

`ModelShape.from_config` reads the names of a Hugging Face `config.json`; `KNOWN` has those of the models that
the project's recipes name, for machines that cannot reach the Hub.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from longshort_reward.errors import UserError

_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder with gated MLP, grouped-query attention and RMS norms."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """One matrix serves as embedding and as output layer."""
    qkv_bias: bool = False
    output_bias: bool = False
    """Of the attention's output projection."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str) -> "ModelShape":
        """Read a config.json. Raises UserError, naming `name`, for one that is not of this family."""
        for key in _NEEDED:
            if not isinstance(config.get(key), int):
                remedy = f"its config.json has no {key}: the planner knows Llama- and Qwen2-like models"
                raise UserError("model", name, remedy)
        heads = config["num_attention_heads"]
        bias = bool(config.get("attention_bias", False))
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=bias or config.get("model_type") == "qwen2",
            output_bias=bias,
        )

    @property
    def embedding(self) -> int:
        """Values of the embedding matrix."""
        return self.vocabulary * self.hidden

    @property
    def ends(self) -> int:
        """Values outside the layers: embedding, output layer if it is one of its own, last norm."""
        return self.embedding * (1 if self.tied else 2) + self.hidden

    @property
    def layer(self) -> int:
        """Values of one layer."""
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * self.hidden * wide + 2 * self.hidden * narrow
        biases = self.qkv_bias * (wide + 2 * narrow) + self.output_bias * self.hidden
        return attention + biases + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def parameters(self) -> int:
        """Values of the whole model."""
        return self.layers * self.layer + self.ends

    @property
    def kv_values(self) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def adapters(self, rank: int) -> int:
        """Values of LoRA adapters of `rank` on all linear layers (verl's all-linear) of the decoder."""
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sides = 2 * (self.hidden + wide) + 2 * (self.hidden + narrow) + 3 * (self.hidden + self.intermediate)
        return rank * sides * self.layers


_QWEN_7B = ModelShape(
    layers=28,
    hidden=3584,
    intermediate=18944,
    heads=28,
    kv_heads=4,
    head_dim=128,
    vocabulary=152064,
    tied=False,
    qkv_bias=True,
)
_QWEN_32B = ModelShape(
    layers=64,
    hidden=5120,
    intermediate=27648,
    heads=40,
    kv_heads=8,
    head_dim=128,
    vocabulary=152064,
    tied=False,
    qkv_bias=True,
)
_QWEN_72B = ModelShape(
    layers=80,
    hidden=8192,
    intermediate=29568,
    heads=64,
    kv_heads=8,
    head_dim=128,
    vocabulary=152064,
    tied=False,
    qkv_bias=True,
)
_LLAMA_8B = ModelShape(
    layers=32,
    hidden=4096,
    intermediate=14336,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocabulary=128256,
    tied=False,
)
KNOWN: Mapping[str, ModelShape] = MappingProxyType(
    {
        "Qwen/Qwen2.5-7B": _QWEN_7B,
        "Qwen/Qwen2.5-7B-Instruct": _QWEN_7B,
        "Qwen/Qwen2.5-72B-Instruct": _QWEN_72B,
        "meta-llama/Llama-3.1-8B": _LLAMA_8B,
        "meta-llama/Llama-3.1-8B-Instruct": _LLAMA_8B,
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": _QWEN_7B,
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": _QWEN_32B,
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": _LLAMA_8B,
    }
)
"""Public models by their name on the Hub, from their config.json."""
