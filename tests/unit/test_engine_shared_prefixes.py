"""Shared prefixes: any beginning of an earlier prompt serves any number of later ones."""

import pytest
import torch
from helpers.engines import ask, build_engine, build_model, reference_logprobs, run

from verl_longshort.engines.kv_cache import SharedPrefixes


def states(length: int) -> torch.Tensor:
    return torch.arange(length).float().reshape(1, length, 1, 1)


def test_any_beginning_is_found_again_and_again() -> None:
    prefixes = SharedPrefixes(100)
    prefixes.keep([1, 2, 3, 4, 5], states(5))
    for _ in range(2):
        found = prefixes.take([1, 2, 3, 9, 9])
        assert found is not None
        assert found.flatten().tolist() == [0, 1, 2]
    assert prefixes.take([2, 3]) is None


def test_a_token_is_left_to_compute() -> None:
    prefixes = SharedPrefixes(100)
    prefixes.keep([1, 2, 3], states(3))
    found = prefixes.take([1, 2, 3])
    assert found is not None
    assert found.shape[1] == 2
    assert prefixes.take([1]) is None


def test_a_part_of_a_kept_prompt_is_not_kept_again() -> None:
    prefixes = SharedPrefixes(100)
    prefixes.keep([1, 2, 3, 4], states(4))
    prefixes.keep([1, 2], states(2))
    assert (len(prefixes), prefixes.tokens) == (1, 4)


@pytest.mark.parametrize(("own", "kept"), [(3, False), (16, False), (17, True)])
def test_a_prompt_that_differs_by_a_few_tokens_at_its_end_is_not_kept(own: int, kept: bool) -> None:
    prefixes, chain = SharedPrefixes(1000), list(range(60))
    prefixes.keep(chain, states(60))
    prompt = [*chain[:40], *range(100, 100 + own)]
    prefixes.keep(prompt, states(len(prompt)))
    assert len(prefixes) == 1 + kept
    found = prefixes.take(prompt)
    assert found is not None
    assert found.shape[1] == (len(prompt) - 1 if kept else 40)


def test_least_recently_used_goes_and_leaves_no_trace() -> None:
    prefixes = SharedPrefixes(6)
    prefixes.keep([1, 2, 3], states(3))
    prefixes.keep([4, 5, 6], states(3))
    assert prefixes.take([1, 2, 9]) is not None
    prefixes.keep([7, 8, 9], states(3))
    assert prefixes.take([4, 5, 9]) is None
    assert prefixes.take([1, 2, 9]) is not None
    assert prefixes.tokens == 6
    prefixes.clear()
    assert prefixes.take([1, 2, 9]) is None


def test_an_engine_computes_a_common_beginning_once() -> None:
    model = build_model("qwen2")
    text = [5, 6, 7, 8, 9, 10, 11, 12]

    async def branches() -> None:
        await ask(engine, text, max_tokens=1)
        for length in (3, 5, 5, 8):
            prompt = [*text[:length], 20, 21]
            made = await ask(engine, prompt, temperature=1.0, seed=length)
            assert made.extra["reused_tokens"] >= length
            assert made.logprobs == pytest.approx(reference_logprobs(model, prompt, made.token_ids), abs=1e-4)

    with build_engine(model, shared_prefixes=True) as engine:
        run(branches())


def test_prompts_from_everywhere_in_a_chain_do_not_drive_it_out() -> None:
    chain = [5 + number % 50 for number in range(80)]

    async def rollouts() -> None:
        await ask(engine, chain, max_tokens=1)
        for length in range(10, 80, 5):
            made = await ask(engine, [*chain[:length], 1, 2, 3], max_tokens=1, seed=length)
            assert made.extra["reused_tokens"] == length

    # room for the chain and little else
    with build_engine(build_model("qwen2"), shared_prefixes=True, kept_tokens=100) as engine:
        run(rollouts())
