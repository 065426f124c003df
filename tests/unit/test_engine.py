"""The transformers engine against the bare model: log-probs, greedy tokens, kept caches, seeds."""

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers.engines import (
    ARCHITECTURES,
    EOS,
    VOCABULARY,
    ask,
    build_engine,
    build_model,
    reference_logprobs,
    run,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from verl_longshort.engines.transformers_engine import TransformersEngine

TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build_model(request.param)


@pytest.fixture(scope="module")
def engine(model: PreTrainedModel) -> Iterator[TransformersEngine]:
    with build_engine(model) as engine:
        yield engine


def some_prompts(count: int, *, longest: int = 40) -> list[list[int]]:
    draw = random.Random(count)
    return [[draw.randrange(VOCABULARY) for _ in range(draw.randint(1, longest))] for _ in range(count)]


def test_logprobs_are_those_of_a_full_forward_pass(model: PreTrainedModel, engine: TransformersEngine) -> None:
    """Rows of many lengths join and leave, and three turns go on from kept caches."""

    async def trajectory(index: int, prompt: list[int]) -> tuple[float, int]:
        worst, reused = 0.0, 0
        temperature = (0.7, 1.0, 1.5)[index % 3]
        for turn in range(3):
            made = await ask(
                engine,
                prompt,
                temperature=temperature,
                top_p=(1.0, 0.8)[index % 2],
                top_k=(-1, 20)[turn % 2],
                max_tokens=3 + 5 * (index % 4),
                ignore_eos=True,
                repetition_penalty=1.0,
            )
            assert made.logprobs is not None
            expected = reference_logprobs(model, prompt, made.token_ids, temperature)
            worst = max(worst, *(abs(a - b) for a, b in zip(made.logprobs, expected, strict=True)))
            reused += made.extra["reused_tokens"]
            prompt = [*prompt, *made.token_ids, 7, 8, 9]
        return worst, reused

    async def all_of_them() -> list[tuple[float, int]]:
        return await asyncio.gather(*(trajectory(i, p) for i, p in enumerate(some_prompts(24))))

    results = run(all_of_them())
    assert max(worst for worst, _ in results) <= TOLERANCE
    assert all(reused > 0 for _, reused in results)
    assert engine.stats["largest_batch"] == 8


def generated(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    # without the mask, generate would take tokens that equal pad_token_id for padding
    mask = torch.ones_like(ids)
    whole = model.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=12, eos_token_id=EOS, pad_token_id=0
    )
    return whole[0, len(prompt) :].tolist()


def test_greedy_equals_generate_of_transformers(model: PreTrainedModel, engine: TransformersEngine) -> None:
    async def together(prompts: list[list[int]]) -> list[list[int]]:
        made = await asyncio.gather(*(ask(engine, p, temperature=0.0, max_tokens=12) for p in prompts))
        return [generation.token_ids for generation in made]

    prompts = some_prompts(10)
    for prompt, tokens in zip(prompts, run(together(prompts)), strict=True):
        assert tokens == generated(model, prompt)


def test_greedy_logprobs_are_of_the_unscaled_logits(model: PreTrainedModel, engine: TransformersEngine) -> None:
    made = run(ask(engine, [3, 4, 5], temperature=0))
    assert made.logprobs == pytest.approx(reference_logprobs(model, [3, 4, 5], made.token_ids), abs=TOLERANCE)


ARRIVAL = st.tuples(st.integers(1, 30), st.integers(1, 12), st.integers(0, 5), st.integers(0, 2**63))


@hypothesis_settings(max_examples=15)
@given(arrivals=st.lists(ARRIVAL, min_size=1, max_size=10), capacity=st.integers(1, 4))
def test_seeded_output_does_not_depend_on_the_batch(arrivals: list[tuple[int, int, int, int]], capacity: int) -> None:
    """Whatever arrives when, each seeded request gives what it gives alone."""
    model = SCHEDULED

    async def one(engine: TransformersEngine, arrival: tuple[int, int, int, int]) -> list[int]:
        length, max_tokens, delay, seed = arrival
        prompt = [seed % VOCABULARY, *range(2, length + 1)]
        await asyncio.sleep(delay / 1000)
        return (await ask(engine, prompt, max_tokens=max_tokens, seed=seed)).token_ids

    async def together(engine: TransformersEngine) -> list[list[int]]:
        return await asyncio.gather(*(one(engine, arrival) for arrival in arrivals))

    async def apart(engine: TransformersEngine) -> list[list[int]]:
        return [await one(engine, arrival) for arrival in arrivals]

    with build_engine(model, max_num_seqs=capacity) as busy, build_engine(model, kept_tokens=0) as quiet:
        assert run(together(busy)) == run(apart(quiet))
        assert busy.stats["largest_batch"] <= capacity


SCHEDULED = build_model()


def test_seeds_make_draws_differ_and_turns_of_one_seed_differ(engine: TransformersEngine) -> None:
    async def draws() -> list[list[int]]:
        sampling = {"max_tokens": 16, "temperature": 2.0, "ignore_eos": True}
        first = await ask(engine, [5, 6], seed=1, **sampling)
        again = await ask(engine, [5, 6], seed=1, **sampling)
        other = await ask(engine, [5, 6], seed=2, **sampling)
        return [first.token_ids, again.token_ids, other.token_ids]

    first, again, other = run(draws())
    assert first == again != other


def test_continuing_an_interrupted_request_draws_the_same(engine: TransformersEngine) -> None:
    async def whole_and_parts() -> tuple[list[int], list[int]]:
        sampling = {"seed": 3, "temperature": 1.5, "ignore_eos": True}
        whole = (await ask(engine, [9, 9], max_tokens=20, **sampling)).token_ids
        begun = (await ask(engine, [9, 9], max_tokens=7, **sampling)).token_ids
        rest = (await ask(engine, [9, 9, *begun], max_tokens=13, **sampling)).token_ids
        return whole, begun + rest

    whole, parts = run(whole_and_parts())
    assert whole == parts


def test_without_seeds_the_engine_seed_and_the_order_of_arrival_decide(model: PreTrainedModel) -> None:
    def tokens(seed: int) -> list[list[int]]:
        with build_engine(model, seed=seed) as engine:
            return [run(ask(engine, [5], temperature=2.0, max_tokens=16)).token_ids for _ in range(2)]

    first = tokens(0)
    assert first == tokens(0) != tokens(1)
    assert first[0] != first[1]


@pytest.mark.parametrize("kept_tokens", [0, 10, 65_536])
def test_kept_cache_serves_prompts_that_go_on(model: PreTrainedModel, kept_tokens: int) -> None:
    async def turns(engine: TransformersEngine) -> list[int]:
        prompt = list(range(2, 12))
        made = await ask(engine, prompt, max_tokens=4, ignore_eos=True)
        longer = [*prompt, *made.token_ids, 20, 21]
        second = await ask(engine, longer, max_tokens=4, ignore_eos=True)
        other = await ask(engine, [3, *longer], max_tokens=1)
        await asyncio.to_thread(engine.clear_kv_cache)
        cleared = await ask(engine, [*longer, *second.token_ids, 30], max_tokens=1)
        return [g.extra["reused_tokens"] for g in (made, second, other, cleared)]

    with build_engine(model, kept_tokens=kept_tokens) as engine:
        # the last generated token was drawn but never computed
        assert run(turns(engine)) == [0, 13 if kept_tokens > 13 else 0, 0, 0]
        assert engine.stats["kept_tokens"] <= kept_tokens


def test_sampling_may_join_a_batch_of_greedy_rows_late(model: PreTrainedModel) -> None:
    async def outputs(engine: TransformersEngine) -> None:
        greedy = asyncio.create_task(ask(engine, [4], temperature=0, max_tokens=250, ignore_eos=True))
        while engine.stats["steps"] < 100 and not greedy.done():
            # a real pause: sleep(0) would spin, and take the interpreter lock from the engine's thread
            await asyncio.sleep(0.001)
        if greedy.done():
            greedy.result()  # shows why it failed
        await ask(engine, [5], temperature=1.0)
        assert len((await greedy).token_ids) == 250

    with build_engine(model) as engine:
        run(outputs(engine))


def test_any_event_loop_can_ask(engine: TransformersEngine) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda i: run(ask(engine, [i + 2], temperature=0.0)).token_ids, range(8)))
    assert made == [run(ask(engine, [i + 2], temperature=0.0)).token_ids for i in range(8)]
