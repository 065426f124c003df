"""Attention of the transformers engine: the model's own, except for grouped heads on a CPU.

Where several query heads share a key head, transformers' sdpa repeats all keys and values for every query head, in
every layer and step, as soon as there is a mask: on CUDA torch has no fast kernel for both. On a CPU it has one, with
the same results to the bit.
"""

from typing import Any

from longshort_reward.errors import UserError
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUPED = "longshort_grouped_sdpa"
"""An attention implementation of transformers: sdpa, without repeated keys and values."""

_ABLE = ("sdpa", "eager")


def choose_attention(model: PreTrainedModel) -> None:
    """Give a model on a CPU `GROUPED` in place of sdpa. Raises UserError for other attention than sdpa and eager."""
    attention = model.config._attn_implementation
    if attention not in (*_ABLE, GROUPED):
        remedy = f"this engine makes its own attention masks; load the model with {' or '.join(_ABLE)}"
        raise UserError("attn_implementation", attention, remedy)
    if attention == "sdpa" and model.device.type == "cpu":
        model.set_attn_implementation(GROUPED)


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it.

    Args:
        query: [rows, query heads, new tokens, head_dim].
        key, value: [rows, key heads, columns, head_dim].
        attention_mask: [rows, 1, new tokens, columns], added to the scores; None: causal.

    Returns [rows, new tokens, query heads, head_dim], and no weights.
    """
    if attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, None, dropout, scaling, **kwargs)
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling, enable_gqa=True
    )
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)
