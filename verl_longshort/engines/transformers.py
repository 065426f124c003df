"""The engine `transformers`: what it can do, and how a command opens one. Light: no torch."""

from contextlib import AbstractContextManager

from verl_longshort.base.device import finds_gpu, use_free_cores
from verl_longshort.engines.spec import Engine, EngineOptions, EngineSpec


def _open(options: EngineOptions) -> AbstractContextManager[Engine]:
    from verl_longshort.engines.loading import load_model
    from verl_longshort.engines.stopping import end_tokens
    from verl_longshort.engines.transformers_engine import TransformersEngine

    device = "cuda" if finds_gpu() else "cpu"
    if device == "cpu":
        use_free_cores()
    model = load_model(options.path, attn_implementation="sdpa", trust_remote_code=options.trust_remote_code).to(device)
    # the ends that the model's generation config names (a chat model has several), and the tokenizer's
    tokenizer = options.tokenizer
    return TransformersEngine(
        model,
        tokenizer,
        max_num_seqs=options.max_num_seqs,
        eos_token_ids=end_tokens(tokenizer, model.generation_config.eos_token_id, tokenizer.eos_token_id),
        seed=options.seed,
        shared_prefixes=options.shared_prefixes,
    )


# files that were written before there was another engine do not name it
TRANSFORMERS = EngineSpec(name="transformers", title="transformers", open=_open, in_headers=False, merges_adapters=True)
