"""Tiny models that say one word after another, by a list."""

from pathlib import Path

import torch
from longshort_reward.protocol import ANSWER_CLOSE, ANSWER_OPEN, RETHINK, THINK_CLOSE, THINK_OPEN
from transformers import LlamaConfig, LlamaForCausalLM

from verl_longshort.world.tiny_tokenizer import build_tokenizer

_ANSWER = {ANSWER_OPEN: "\\boxed{", "\\boxed{": "4", "4": "}", "}": ANSWER_CLOSE}
_THINK = {"?": THINK_OPEN, THINK_OPEN: "so", "so": THINK_CLOSE}

# The prompt of a problem ends with "?", a turn of the partner with its closing tag.
FOLLOWING: dict[str, dict[str, str]] = {
    "long": {**_THINK, RETHINK: THINK_OPEN},
    "short": {**_ANSWER, THINK_CLOSE: ANSWER_OPEN},
    "doubting": {THINK_CLOSE: ANSWER_OPEN, ANSWER_OPEN: "so", "so": RETHINK},
    "asking": {THINK_CLOSE: ANSWER_OPEN, ANSWER_OPEN: RETHINK},
    "single": {**_ANSWER, **_THINK, THINK_CLOSE: ANSWER_OPEN},
}
"""What each model says after a word."""


def save_model(folder: Path, following: dict[str, str]) -> Path:
    """A model that says the word that `following` gives for the word before it, whatever stands further
    back.
    """
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    ids = tokenizer.get_vocab()
    with torch.no_grad():
        # No attention and no MLP: the logits are a function of the last word alone.
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), 96))
        model.lm_head.weight.zero_()
        for word, successor in following.items():
            model.lm_head.weight[ids[successor], ids[word]] = 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
