"""Models of the Llama and Qwen2 families: their shapes, what can be counted from these, and where the models are.

A model is a folder that an earlier stage writes, a folder on the disk, or a name on the Hugging Face Hub. The
Hub is asked for the model's config.json, once per model; a Hub that cannot be reached is no mistake of the
recipe, so then nothing is said about the access, and shapes come from `KNOWN`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from longshort_reward.errors import UserError

from verl_longshort.base.requirements import Product

_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_ETAG_TIMEOUT_S = 10
_REACH_TIMEOUT_S = 5
_BF16 = 2


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


ShapeOf = Callable[[str], ModelShape]
"""The shape of a model by its name."""

_LLAMA_8B = ModelShape(
    layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, head_dim=128, vocabulary=128256, tied=False
)
_QWEN_7B = replace(
    _LLAMA_8B, layers=28, hidden=3584, intermediate=18944, heads=28, kv_heads=4, vocabulary=152064, qkv_bias=True
)
_QWEN_1_5B = replace(_QWEN_7B, hidden=1536, intermediate=8960, heads=12, kv_heads=2, vocabulary=151936, tied=True)
KNOWN: Mapping[str, ModelShape] = MappingProxyType(
    {
        "Qwen/Qwen2.5-0.5B-Instruct": replace(
            _QWEN_1_5B, layers=24, hidden=896, intermediate=4864, heads=14, head_dim=64
        ),
        "Qwen/Qwen2.5-1.5B-Instruct": _QWEN_1_5B,
        "Qwen/Qwen2.5-7B": _QWEN_7B,
        "Qwen/Qwen2.5-7B-Instruct": _QWEN_7B,
        "Qwen/Qwen2.5-72B-Instruct": replace(
            _QWEN_7B, layers=80, hidden=8192, intermediate=29568, heads=64, kv_heads=8
        ),
        "meta-llama/Llama-3.1-8B": _LLAMA_8B,
        "meta-llama/Llama-3.1-8B-Instruct": _LLAMA_8B,
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": replace(_QWEN_1_5B, tied=False),
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": _QWEN_7B,
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": replace(
            _QWEN_7B, layers=64, hidden=5120, intermediate=27648, heads=40, kv_heads=8
        ),
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": _LLAMA_8B,
    }
)
"""The models that the project's recipes name, by their name on the Hub, from their config.json."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is known about a model."""

    name: str
    where: str = ""
    """For people."""
    shape: ModelShape | None = None
    problem: str = ""
    """Why it cannot be had."""
    download: float = 0.0
    """Bytes still to be fetched."""
    made: bool = False
    """A stage of the recipe writes it."""


class Models:
    """Looks models up, each once.

    Args:
        products: what the recipe's stages write.
        offline: the recipe forbids asking the Hub (HF_HUB_OFFLINE).
    """

    def __init__(self, products: Mapping[str, Product], *, offline: bool) -> None:
        self._products = products
        self._offline = offline
        self._reachable = True
        self._found: dict[str, Found] = {}

    def find(self, name: str) -> Found:
        """The model in the folder `name`, or of that name."""
        if name not in self._found:
            try:
                self._found[name] = self._find(name)
            except UserError as error:
                self._found[name] = Found(name=name, problem=error.remedy)
        return self._found[name]

    @property
    def found(self) -> list[Found]:
        """All models asked for so far."""
        return list(self._found.values())

    def _find(self, name: str) -> Found:
        product = self._products.get(name)
        if product is not None and product.config is not None:
            shape = ModelShape.from_config(product.config, name)
            return Found(name=name, where="made by a stage", shape=shape, made=True)
        if product is not None and product.model is not None:
            return Found(name=name, where="trained by a stage", shape=self.find(product.model).shape, made=True)
        if product is not None:
            return Found(name=name, where="written by a stage, which does not say what it is", made=True)
        if Path(name).is_dir():
            return Found(name=name, where="folder", shape=_read(Path(name) / "config.json", name))
        if Path(name).is_absolute():
            # The command that asked for it, or the stage that should have made it, has said so.
            return Found(name=name, where="no such folder")
        return self._on_hub(name)

    def _on_hub(self, name: str) -> Found:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str) and any(Path(cached).parent.glob("*.safetensors")):
            return Found(name=name, where="in the Hub's cache", shape=_read(Path(cached), name))
        if self._offline:
            remedy = "is not in the Hub's cache, and the recipe sets HF_HUB_OFFLINE: fetch it before"
            return Found(name=name, shape=KNOWN.get(name), problem=remedy)
        return self._ask(name) if self._reachable else _unchecked(name)

    def _ask(self, name: str) -> Found:
        import httpx
        from huggingface_hub import hf_hub_download
        from huggingface_hub.constants import ENDPOINT
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        try:
            # Asked briefly first: huggingface_hub itself tries for half a minute.
            httpx.head(ENDPOINT, timeout=_REACH_TIMEOUT_S)
            shape = _read(Path(hf_hub_download(name, "config.json", etag_timeout=_ETAG_TIMEOUT_S)), name)
        except GatedRepoError:
            remedy = "is gated: accept its licence on the Hub and set HF_TOKEN to a token that may read it"
            return Found(name=name, shape=KNOWN.get(name), problem=remedy)
        except RepositoryNotFoundError:
            remedy = "the Hub has no such model, or it is private: check the name, or set HF_TOKEN"
            return Found(name=name, problem=remedy)
        except (OSError, httpx.HTTPError):
            # there is no connection, it was lost, or the Hub is ill
            self._reachable = False
            return _unchecked(name)
        return Found(name=name, where="on the Hub", shape=shape, download=shape.parameters * _BF16)


def _unchecked(name: str) -> Found:
    shape = KNOWN.get(name)
    download = shape.parameters * _BF16 if shape else 0.0
    return Found(name=name, where="not checked: the Hub cannot be reached", shape=shape, download=download)


def _read(file: Path, name: str) -> ModelShape:
    return ModelShape.from_config(json.loads(file.read_text(encoding="utf-8")), name)
