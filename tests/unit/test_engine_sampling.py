"""Sampling keys and the draw itself."""

import math
from typing import Any

import pytest
import torch

from verl_longshort.engines.sampling import RowRules, noise, sample
from verl_longshort.engines.sampling_params import SamplingParams

VERL_SENDS = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}


def test_what_verl_sends_is_accepted() -> None:
    params = SamplingParams.parse({**VERL_SENDS, "stop": ["</think>"], "max_tokens": 5})
    assert params == SamplingParams(logprobs=True, stop=("</think>",), max_tokens=5)
    assert SamplingParams.parse({"max_new_tokens": 3, "stop": "x", "stop_token_ids": [4, 4]}) == SamplingParams(
        max_tokens=3, stop=("x",), stop_token_ids=frozenset({4})
    )


@pytest.mark.parametrize("value", [None, False])
def test_logprobs_off(value: object) -> None:
    assert not SamplingParams.parse({"logprobs": value}).logprobs


@pytest.mark.parametrize("value", [True, 0, 1])
def test_logprobs_on(value: object) -> None:
    assert SamplingParams.parse({"logprobs": value}).logprobs


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("repetition_penalty", 1.1),
        ("n", 2),
        ("min_p", 0.1),
        ("beams", 4),
        ("logprobs", 5),
        ("temperature", -1.0),
        ("top_p", 0.0),
        ("top_k", -2),
        ("max_tokens", 0),
        ("min_tokens", -1),
        ("stop", ["a", ""]),
        ("seed", -1),
    ],
)
def test_what_it_cannot_do_is_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=key):
        SamplingParams.parse({key: value})


def draw(
    logits: list[list[float]], params: list[SamplingParams], uniforms: list[float], **banned: list[int]
) -> tuple[list[int], list[float]]:
    rules = RowRules(params, len(logits[0]), torch.device("cpu"))
    forbidden = {int(row.removeprefix("row")): ids for row, ids in banned.items()}
    tokens, logprobs = sample(torch.tensor(logits), rules, uniforms, forbidden)
    return tokens.tolist(), logprobs.tolist()


def logs(*probabilities: float) -> list[float]:
    return [math.log(p) for p in probabilities]


def test_uniform_numbers_pick_by_probability() -> None:
    rows = [logs(0.5, 0.3, 0.2)] * 5
    tokens, logprobs = draw(rows, [SamplingParams()] * 5, [0.0, 0.49, 0.51, 0.79, 0.999999])
    assert tokens == [0, 0, 1, 1, 2]
    assert logprobs == pytest.approx(logs(0.5, 0.5, 0.3, 0.3, 0.2))


def test_temperature_scales_and_zero_is_greedy() -> None:
    rows = [logs(0.2, 0.8), logs(0.2, 0.8)]
    params = [SamplingParams(temperature=0.5), SamplingParams(temperature=0)]
    tokens, logprobs = draw(rows, params, [0.05, 0.0])
    assert tokens == [0, 1]
    assert logprobs == pytest.approx(logs(0.04 / 0.68, 0.8))


@pytest.mark.parametrize(
    ("params", "allowed"),
    [
        (SamplingParams(top_k=2), {0, 1}),
        (SamplingParams(top_p=0.5), {0}),
        (SamplingParams(top_p=0.51), {0, 1}),
        (SamplingParams(top_p=1e-9), {0}),
        (SamplingParams(top_k=2, top_p=0.6), {0}),  # 0.5 / 0.8 of what top_k leaves is more than 0.6
        (SamplingParams(top_k=99), {0, 1, 2}),
        (SamplingParams(), {0, 1, 2}),
    ],
)
def test_top_k_and_top_p(params: SamplingParams, allowed: set[int]) -> None:
    steps = [i / 50 for i in range(50)]
    # a second row without filters shares the batch
    rows = [logs(0.5, 0.3, 0.2)] * 50
    tokens, logprobs = draw(rows, [params] * 49 + [SamplingParams()], steps)
    assert set(tokens[:49]) == allowed
    assert tokens[49] == 2
    assert logprobs == pytest.approx([logs(0.5, 0.3, 0.2)[token] for token in tokens])


def test_bans_touch_their_row_only() -> None:
    rows = [logs(0.9, 0.1), logs(0.9, 0.1)]
    greedy = [SamplingParams(temperature=0)] * 2
    tokens, logprobs = draw(rows, greedy, [], row1=[0])
    assert tokens == [0, 1]
    assert logprobs == pytest.approx(logs(0.9, 0.1))


def test_noise_is_a_function_of_seed_and_position() -> None:
    whole = noise(7, 0, 50)
    assert all(0 <= x < 1 for x in whole)
    assert len(set(whole)) == 50
    for first in (1, 2, 3, 4, 5, 37):
        assert noise(7, first, 10) == whole[first : first + 10]
    assert noise(8, 0, 50) != whole
    assert noise((1 << 64) + 7, 0, 50) != whole
