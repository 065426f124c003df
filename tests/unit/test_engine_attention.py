"""Attention with grouped heads on a CPU."""

import pytest
import torch
from helpers.engines import build_engine, build_model
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from verl_longshort.engines.attention import GROUPED, grouped_attention


class Module(nn.Module):
    num_key_value_groups = 3
    is_causal = True


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "new", "columns"), [(1, 1, 700), (8, 1, 90), (2, 40, 130), (1, 64, 64)])
def test_results_are_those_of_repeated_heads_to_the_bit(rows: int, new: int, columns: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    # keys and values lie as in the slots: a window of a larger buffer, heads after columns
    keys, values = (torch.randn(rows, columns + 50, 2, 16, dtype=dtype)[:, :columns].transpose(1, 2) for _ in "kv")
    query = torch.randn(rows, 6, new, 16, dtype=dtype)
    mask = torch.zeros(rows, 1, new, columns, dtype=dtype)
    mask.masked_fill_(torch.rand(mask.shape) < 0.3, torch.finfo(dtype).min)
    for given in (mask, None) if new in (1, columns) else (mask,):
        expected, _ = sdpa_attention_forward(Module(), query, keys, values, given, scaling=0.3)
        assert torch.equal(grouped_attention(Module(), query, keys, values, given, scaling=0.3)[0], expected)


def test_model_of_an_engine_computes_the_same_outside_of_it() -> None:
    model = build_model()
    tokens = torch.tensor([[5, 9, 3, 7], [2, 4, 6, 8]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    with torch.no_grad():
        before = [model(tokens).logits, model(tokens, attention_mask=mask).logits]
        with build_engine(model):
            assert model.config._attn_implementation == GROUPED
            after = [model(tokens).logits, model(tokens, attention_mask=mask).logits]
    assert all(map(torch.equal, before, after))
    with build_engine(model):
        pass


def test_attention_that_keeps_its_weights_stays() -> None:
    model = build_model()
    model.set_attn_implementation("eager")
    with build_engine(model):
        assert model.config._attn_implementation == "eager"
