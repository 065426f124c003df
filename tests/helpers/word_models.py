"""Tiny models that say one word after another, by a list."""

from pathlib import Path

import torch
from longshort_reward.protocol import ANSWER_CLOSE, ANSWER_OPEN, RETHINK, THINK_CLOSE, THINK_OPEN
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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
    ids = tokenizer.get_vocab()
    successors = {ids[word]: ids[successor] for word, successor in following.items()}
    return save_successors(folder, tokenizer, successors, positions=256)


def save_successors(
    folder: Path, tokenizer: PreTrainedTokenizerFast, successors: dict[int, int], positions: int = 4096
) -> Path:
    """The same, of token ids of any tokenizer."""
    torch.manual_seed(0)
    # an even number, for the attention, and one place for each token
    hidden = max(96, len(tokenizer) + len(tokenizer) % 2)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # No attention and no MLP: the logits are a function of the last word alone.
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), hidden))
        model.lm_head.weight.zero_()
        for token, successor in successors.items():
            model.lm_head.weight[successor, token] = 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
