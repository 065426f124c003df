"""Loads a model with its tokenizer into an engine in this process."""

from contextlib import ExitStack
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from verl_longshort.rollout.engine import TransformersEngine
from verl_longshort.trajectory import Generate


def load_participant(
    path: str, *, max_num_seqs: int, seed: int, engines: ExitStack
) -> tuple[PreTrainedTokenizerBase, Generate]:
    """The tokenizer and the `generate` of the model in `path`; see `load_engine`."""
    tokenizer, engine = load_engine(path, max_num_seqs=max_num_seqs, seed=seed, engines=engines)
    return tokenizer, engine.generate


def load_engine(
    path: str, *, max_num_seqs: int, seed: int, engines: ExitStack, shared_prefixes: bool = False
) -> tuple[PreTrainedTokenizerBase, TransformersEngine]:
    """The tokenizer of the model in `path`, and an engine with the model, on the GPU where there is one.

    `engines` closes the engine.
    """
    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype="auto", attn_implementation="sdpa").to(device)
    engine = TransformersEngine(
        model,
        tokenizer,
        max_num_seqs=max_num_seqs,
        eos_token_ids=_end_tokens(model, tokenizer),
        seed=seed,
        shared_prefixes=shared_prefixes,
    )
    engines.enter_context(engine)
    return tokenizer, engine


def _end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ends that the model's generation config names (a chat model has several), and the tokenizer's."""
    named = model.generation_config.eos_token_id
    ends = named if isinstance(named, list) else [named]
    return {token for token in (*ends, tokenizer.eos_token_id) if token is not None}
