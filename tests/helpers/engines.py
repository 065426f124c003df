"""Tiny random models of two architectures, and what a model says without batch and cache, to compare with."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from helpers.tiny_tokenizers import word_level
from verl_longshort.core.trajectory import Generation
from verl_longshort.engines.transformers_engine import TransformersEngine

VOCABULARY = 64
EOS = 1
ARCHITECTURES = ("qwen2", "llama")
WATCHDOG_S = 60

T = TypeVar("T")


def build_model(architecture: str = "llama", *, seed: int = 0) -> PreTrainedModel:
    """Two layers; the Llama has grouped heads and weights large enough for uneven distributions."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    size: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "attn_implementation": "sdpa",
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if architecture == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**size, num_key_value_heads=2, tie_word_embeddings=True)).eval()
    return LlamaForCausalLM(LlamaConfig(**size, num_key_value_heads=1)).eval()


def build_engine(model: PreTrainedModel, **options: Any) -> TransformersEngine:
    return TransformersEngine(model, word_level(), **{"max_num_seqs": 8, "eos_token_ids": [EOS], **options})


async def ask(
    engine: TransformersEngine, prompt: Sequence[int], *, name: str = "request", **sampling: Any
) -> Generation:
    """One request with log-probs; fails instead of hanging."""
    given = {"max_tokens": 8, "logprobs": True, **sampling}
    waiting = engine.generate(request_id=name, prompt_ids=list(prompt), sampling=given)
    return await asyncio.wait_for(waiting, WATCHDOG_S)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@torch.no_grad()
def reference_logprobs(
    model: PreTrainedModel, prompt: Sequence[int], output: Sequence[int], temperature: float = 1.0
) -> list[float]:
    """Log-probs of `output` after `prompt` from one forward pass over the whole sequence."""
    logits = model(input_ids=torch.tensor([[*prompt, *output]])).logits[0, len(prompt) - 1 : -1].float()
    chosen = torch.tensor(output).unsqueeze(1)
    return torch.log_softmax(logits / temperature, dim=-1).gather(1, chosen).squeeze(1).tolist()
