"""What ends a request early or holds it: stop conditions, limits, abort, pause, sleep, weights, errors."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers.engines import EOS, ask, build_engine, build_model, reference_logprobs, run
from longshort_reward.errors import UserError
from transformers import MistralConfig, MistralForCausalLM, PreTrainedModel

from verl_longshort.core.trajectory import Generation
from verl_longshort.engines.transformers_engine import TransformersEngine
from verl_longshort.engines.weights import PackedTensor, checksum, missing_weights

ENDLESS = {"max_tokens": 250, "ignore_eos": True}


@pytest.fixture
def model() -> PreTrainedModel:
    return build_model()


@pytest.fixture
def engine(model: PreTrainedModel) -> Iterator[TransformersEngine]:
    with build_engine(model) as engine:
        yield engine


@pytest.fixture
def slow(model: PreTrainedModel) -> PreTrainedModel:
    """The model, a hundredth of a second slower, so that a test can meet a request while it runs."""
    model.register_forward_pre_hook(lambda *_: time.sleep(0.01))
    return model


async def until(condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(wait(), 30)


async def started(engine: TransformersEngine, count: int, **sampling: Any) -> list["asyncio.Task[Generation]"]:
    """Requests that are running and have generated something."""
    tasks = [asyncio.create_task(ask(engine, [i + 2, 5], name=str(i), **sampling)) for i in range(count)]
    before = engine.stats["steps"]
    await until(lambda: engine.stats["running"] == count and engine.stats["steps"] > before)
    return tasks


def test_stop_token_max_tokens_and_min_tokens(engine: TransformersEngine) -> None:
    async def outputs() -> None:
        free = (await ask(engine, [4, 5], temperature=0, max_tokens=10, ignore_eos=True)).token_ids
        third = free[2]
        first_at = free.index(third)
        stopped = await ask(engine, [4, 5], temperature=0, max_tokens=10, stop_token_ids=[third])
        assert (stopped.token_ids, stopped.finish_reason) == (free[: first_at + 1], "stop")
        cut = await ask(engine, [4, 5], temperature=0, max_tokens=2, ignore_eos=True)
        assert (cut.token_ids, cut.finish_reason) == (free[:2], "length")
        later = await ask(engine, [4, 5], temperature=0, stop_token_ids=[free[0]], min_tokens=4, max_tokens=6)
        assert free[0] not in later.token_ids[:3]
        assert len(later.token_ids) >= 4

    run(outputs())


def test_eos_ends_unless_ignored(engine: TransformersEngine, model: PreTrainedModel) -> None:
    with torch.no_grad():
        model.lm_head.weight.zero_()  # every token is as likely as any other: greedy takes id 0

    async def outputs() -> None:
        assert (await ask(engine, [4], temperature=0)).token_ids == [0] * 8
        ended = [await ask(engine, [4], seed=s, max_tokens=250, temperature=1.0) for s in range(8)]
        short = [g for g in ended if g.finish_reason == "stop"]
        assert short
        assert all(g.token_ids[-1] == EOS and EOS not in g.token_ids[:-1] for g in short)
        endless = [await ask(engine, [4], seed=s, **ENDLESS) for s in range(8)]
        assert all(len(g.token_ids) == 250 for g in endless)

    run(outputs())


def test_requests_beyond_capacity_wait(slow: PreTrainedModel) -> None:
    async def outputs(engine: TransformersEngine) -> None:
        tasks = await started(engine, 2, max_tokens=20, ignore_eos=True)
        late = asyncio.create_task(ask(engine, [9], max_tokens=2, ignore_eos=True))
        await until(lambda: engine.stats["waiting"] == 1)
        assert len((await late).token_ids) == 2
        await asyncio.gather(*tasks)
        assert engine.stats["largest_batch"] == 2

    with build_engine(slow, max_num_seqs=2) as engine:
        run(outputs(engine))


def test_request_that_does_not_fit_names_the_numbers(engine: TransformersEngine) -> None:
    with pytest.raises(ValueError, match=r"200 prompt tokens and max_tokens 57 .* 256"):
        run(ask(engine, [3] * 200, max_tokens=57))
    assert len(run(ask(engine, [3] * 200, max_tokens=56, ignore_eos=True)).token_ids) == 56
    assert len(run(ask(engine, [3] * 250, max_tokens=None, ignore_eos=True)).token_ids) == 6
    with pytest.raises(ValueError, match="at least one token"):
        run(ask(engine, []))


def test_prompt_longer_than_one_prefill_piece(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verl_longshort.engines.batch._PREFILL_COLUMNS", 16)
    monkeypatch.setattr("verl_longshort.engines.batch._PREFILL_TOKENS_CPU", 40)
    prompts = [list(range(2, 2 + n)) for n in (3, 50, 16, 17, 1, 33)]

    async def outputs(engine: TransformersEngine) -> list[Generation]:
        return await asyncio.gather(*(ask(engine, prompt, max_tokens=4) for prompt in prompts))

    with build_engine(model) as engine:
        for prompt, made in zip(prompts, run(outputs(engine)), strict=True):
            expected = reference_logprobs(model, prompt, made.token_ids)
            assert made.logprobs == pytest.approx(expected, abs=1e-5)


def test_abort_gives_partial_output_and_its_cache_can_be_continued(slow: PreTrainedModel) -> None:
    async def outputs(engine: TransformersEngine) -> None:
        tasks = await started(engine, 3, **ENDLESS)
        engine.pause()
        waiting = asyncio.create_task(ask(engine, [9], name="late"))
        await until(lambda: engine.stats["waiting"] == 1)
        aborted = await asyncio.to_thread(engine.abort_all)
        made = await asyncio.gather(*tasks)
        assert sorted(aborted) == ["0", "1", "2", "late"]
        assert {g.finish_reason for g in made} == {"aborted"}
        assert all(0 < len(g.token_ids) < 250 for g in made)
        assert (await waiting).token_ids == []
        engine.resume()
        again = await ask(engine, [2, 5, *made[0].token_ids], max_tokens=1)
        assert again.extra["reused_tokens"] >= 1 + len(made[0].token_ids) - 1

    with build_engine(slow) as engine:
        run(outputs(engine))


def test_cancelled_task_leaves_the_batch(slow: PreTrainedModel) -> None:
    async def outputs(engine: TransformersEngine) -> None:
        tasks = await started(engine, 3, **ENDLESS)
        tasks[1].cancel()
        await until(lambda: engine.stats["running"] == 2)
        await asyncio.to_thread(engine.abort_all)
        assert len((await tasks[0]).token_ids) > 0

    with build_engine(slow) as engine:
        run(outputs(engine))


def test_pause_and_sleep_hold_requests(engine: TransformersEngine) -> None:
    async def outputs() -> None:
        for hold, release in ((engine.pause, engine.resume), (engine.sleep, engine.wake)):
            await ask(engine, [7, 8])
            await asyncio.to_thread(hold)
            held = asyncio.create_task(ask(engine, [7, 8, 9]))
            await until(lambda: engine.stats["waiting"] == 1)
            await asyncio.sleep(0.02)
            assert not held.done()
            await asyncio.to_thread(release)
            await held
        assert engine.stats["kept_tokens"] < 20  # sleeping forgot what was kept before

    run(outputs())


def test_sleep_waits_for_running_requests(slow: PreTrainedModel) -> None:
    async def outputs(engine: TransformersEngine) -> None:
        tasks = await started(engine, 2, max_tokens=10, ignore_eos=True)
        await asyncio.to_thread(engine.sleep)
        assert [len(g.token_ids) for g in await asyncio.gather(*tasks)] == [10, 10]
        assert engine.stats["kept_tokens"] == 0

    with build_engine(slow) as engine:
        run(outputs(engine))


def test_new_weights_are_used_and_old_caches_are_not(model: PreTrainedModel) -> None:
    other = build_model(seed=1)

    async def outputs(engine: TransformersEngine) -> None:
        first = await ask(engine, [4, 5, 6], ignore_eos=True)
        assert engine.weights_checksum() != checksum(other)
        names = await asyncio.to_thread(engine.load_weights, other.state_dict().items())
        assert names == list(other.state_dict())
        assert engine.weights_checksum() == checksum(other)
        prompt = [4, 5, 6, *first.token_ids, 7]
        second = await ask(engine, prompt)
        assert second.extra["reused_tokens"] == 0
        expected = reference_logprobs(other, prompt, second.token_ids)
        assert second.logprobs == pytest.approx(expected, abs=1e-5)

    with build_engine(model) as engine:
        run(outputs(engine))


@pytest.mark.parametrize(
    ("name", "shape", "error"), [("lm_head.bias", (64,), KeyError), ("lm_head.weight", (32, 64), ValueError)]
)
def test_weights_that_do_not_fit_are_named(
    engine: TransformersEngine, name: str, shape: tuple[int, ...], error: type[Exception]
) -> None:
    with pytest.raises(error, match=name):
        engine.load_weights([(name, torch.zeros(shape))])
    assert run(ask(engine, [4])).token_ids


def test_missing_weights_know_tied_ones() -> None:
    tied = build_model("qwen2")
    names = list(tied.state_dict())
    assert missing_weights(tied, [name for name in names if name != "lm_head.weight"]) == []
    assert missing_weights(tied, names[1:-1]) == ["model.embed_tokens.weight", "lm_head.weight"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_packed_tensor_comes_back(dtype: torch.dtype) -> None:
    tensor = torch.arange(12).reshape(3, 4).to(dtype)
    packed = PackedTensor.of("w", tensor.t())
    assert packed.name == "w"
    assert packed.tensor().dtype == dtype
    assert torch.equal(packed.tensor(), tensor.t())


def test_error_in_prefill_fails_only_that_request(slow: PreTrainedModel) -> None:
    def poison(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if bool((kwargs["input_ids"] == 63).any()) and kwargs["input_ids"].shape[1] > 1:
            raise RuntimeError("poisoned")

    slow.register_forward_pre_hook(poison, with_kwargs=True)

    async def outputs(engine: TransformersEngine) -> None:
        tasks = await started(engine, 2, max_tokens=30, ignore_eos=True)
        with pytest.raises(RuntimeError, match="poisoned"):
            await ask(engine, [2, 63, 2])
        assert [len(g.token_ids) for g in await asyncio.gather(*tasks)] == [30, 30]

    with build_engine(slow) as engine:
        run(outputs(engine))


def test_error_while_decoding_fails_what_runs_and_serves_on(slow: PreTrainedModel) -> None:
    broken = [False]

    def fail(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if broken[0]:
            raise RuntimeError("out of luck")

    slow.register_forward_pre_hook(fail, with_kwargs=True)

    async def outputs(engine: TransformersEngine) -> None:
        tasks = await started(engine, 3, **ENDLESS)
        broken[0] = True
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(e) for e in errors] == ["out of luck"] * 3
        broken[0] = False
        assert (await ask(engine, [4])).token_ids

    with build_engine(slow) as engine:
        run(outputs(engine))


def test_close_fails_what_runs_and_what_comes_later(slow: PreTrainedModel) -> None:
    async def outputs(engine: TransformersEngine) -> None:
        tasks = await started(engine, 2, **ENDLESS)
        await asyncio.to_thread(engine.close)
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert all("closed" in str(e) for e in errors)
        with pytest.raises(RuntimeError, match="closed"):
            await ask(engine, [3])
        with pytest.raises(RuntimeError, match="closed"):
            engine.sleep()
        engine.close()

    run(outputs(build_engine(slow)))


def test_models_it_cannot_run_are_refused(model: PreTrainedModel) -> None:
    config = MistralConfig(
        vocab_size=8,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        sliding_window=4,
        attn_implementation="sdpa",
    )
    with pytest.raises(UserError, match="full attention"):
        build_engine(MistralForCausalLM(config))
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UserError, match="flash_attention_2"):
        build_engine(model)
