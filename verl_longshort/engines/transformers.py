"""The engine `transformers`: what it can do, and how a command opens one. Light: no torch."""

from contextlib import AbstractContextManager

from verl_longshort.base.device import finds_gpu
from verl_longshort.engines.spec import Engine, EngineOptions, EngineSpec


def _open(options: EngineOptions) -> AbstractContextManager[Engine]:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from verl_longshort.engines.transformers_engine import TransformersEngine

    logging.disable_progress_bar()
    device = "cuda" if finds_gpu() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(options.path, dtype="auto", attn_implementation="sdpa").to(device)
    # the ends that the model's generation config names (a chat model has several), and the tokenizer's
    named = model.generation_config.eos_token_id
    ends = [*(named if isinstance(named, list) else [named]), options.tokenizer.eos_token_id]
    return TransformersEngine(
        model,
        options.tokenizer,
        max_num_seqs=options.max_num_seqs,
        eos_token_ids=[token for token in ends if token is not None],
        seed=options.seed,
        shared_prefixes=options.shared_prefixes,
    )


# files that were written before there was another engine do not name it
TRANSFORMERS = EngineSpec(name="transformers", title="transformers", open=_open, in_headers=False)
