"""The vLLM engine in this process, on the stand-in of `helpers.fake_vllm`, whose docstring has vLLM's facts."""

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.fake_vllm import END, AsyncEngineArgs, FakeVllm, RequestOutputKind
from helpers.tiny_tokenizers import byte_level, word_level
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.protocol import STOP_STRINGS, Fault, Role, parse_turn
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from verl_longshort.core.role_view import decode_turn
from verl_longshort.core.trajectory import Generation
from verl_longshort.engines.sampling_params import SamplingParams
from verl_longshort.engines.stopping import StopStrings
from verl_longshort.engines.vllm import ON_CPU, VllmEngine, arguments, for_request, turn_seed

PROMPT = [3, 4, 5, 6]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeVllm:
    for name in ("VLLM_WORKER_MULTIPROC_METHOD", "VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS"):
        monkeypatch.setenv(name, "set before")
        monkeypatch.delenv(name)
    return FakeVllm().install(monkeypatch)


@pytest.fixture
def engine(fake: FakeVllm) -> Iterator[VllmEngine]:
    with VllmEngine("folder", max_num_seqs=4, seed=2**32 + 5) as made:
        yield made


def ask(engine: VllmEngine, prompt: list[int] = PROMPT, **sampling: Any) -> Generation:
    async def work() -> Generation:
        return await asyncio.wait_for(engine.generate(request_id="one", prompt_ids=prompt, sampling=sampling), 30)

    return asyncio.run(work())


def test_how_vllm_is_started(fake: FakeVllm, engine: VllmEngine) -> None:
    assert fake.args == [
        AsyncEngineArgs(
            model="folder",
            max_num_seqs=4,
            seed=5,
            enable_prefix_caching=True,
            logprobs_mode="processed_logprobs",
            disable_log_stats=True,
        )
    ]
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
    assert engine.max_model_len == 64


def test_several_gpus_and_their_memory(fake: FakeVllm) -> None:
    options = {"enforce_eager": True}
    made = VllmEngine("x", max_num_seqs=1, tensor_parallel_size=2, gpu_memory_utilization=0.4, options=options)
    made.close()
    (args,) = fake.args
    assert (args.tensor_parallel_size, args.gpu_memory_utilization, args.enforce_eager) == (2, 0.4, True)


def test_what_the_build_for_cpus_needs(fake: FakeVllm) -> None:
    fake.on_cpu = True
    with VllmEngine("somewhere", max_num_seqs=4):
        pass
    (args,) = fake.args
    assert args.enable_chunked_prefill is ON_CPU["enable_chunked_prefill"] is False


def test_tokens_log_probs_and_reuse(fake: FakeVllm, engine: VllmEngine) -> None:
    made = ask(engine, max_tokens=3, logprobs=1)
    assert made == Generation(
        token_ids=[7] * 3, logprobs=[-0.5] * 3, finish_reason="length", extra={"reused_tokens": 2}
    )
    (params,) = fake.params
    assert params.output_kind is RequestOutputKind.FINAL_ONLY
    assert fake.prompts == [{"prompt_token_ids": PROMPT}]
    assert (params.logprobs, params.detokenize, params.top_k) == (0, False, -1)


def test_no_log_probs_unless_asked(engine: VllmEngine) -> None:
    assert ask(engine, max_tokens=1).logprobs is None


def test_without_max_tokens_the_rest_of_the_model(engine: VllmEngine) -> None:
    assert len(ask(engine).token_ids) == 60


def test_the_end_token_stays(fake: FakeVllm, engine: VllmEngine) -> None:
    fake.reply = lambda prompt, params: [7, 8, END, 9]
    made = ask(engine, max_tokens=4)
    assert (made.token_ids, made.finish_reason) == ([7, 8, END], "stop")


@pytest.mark.parametrize(("vllms", "ours"), [("abort", "aborted"), ("stop", "stop"), ("length", "length")])
def test_finish_reasons(fake: FakeVllm, engine: VllmEngine, vllms: str, ours: str) -> None:
    fake.finish_reason = vllms
    assert ask(engine, max_tokens=1).finish_reason == ours


@pytest.mark.parametrize("reason", ["error", "repetition"])
def test_other_ends_are_errors(fake: FakeVllm, engine: VllmEngine, reason: str) -> None:
    fake.finish_reason = reason
    with pytest.raises(RuntimeError, match=f"request one: vLLM ended it with '{reason}'"):
        ask(engine, max_tokens=1)


@pytest.mark.parametrize(
    ("prompt", "sampling", "message"),
    [
        ([], {}, "prompt_ids is empty"),
        (PROMPT, {"max_tokens": 61}, "exceed the model length of 64"),
        ([3] * 64, {}, "exceed the model length"),
        (PROMPT, {"best_of": 2}, "unknown sampling key"),
        (PROMPT, {"min_p": 0.5}, "not supported"),
    ],
)
def test_bad_requests_are_refused_as_by_the_other_engine(
    engine: VllmEngine, prompt: list[int], sampling: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ask(engine, prompt, **sampling)


def test_a_cancelled_request_leaves_the_engine_usable(fake: FakeVllm, engine: VllmEngine) -> None:
    fake.hangs = True

    async def cancelled() -> None:
        task = asyncio.create_task(engine.generate(request_id="c", prompt_ids=PROMPT, sampling={}))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    asyncio.run(cancelled())
    fake.hangs = False
    assert ask(engine, max_tokens=1).finish_reason == "length"


def test_closing_fails_what_runs_and_ends_the_thread(fake: FakeVllm) -> None:
    before = threading.active_count()
    engine = VllmEngine("x", max_num_seqs=1)
    fake.hangs = True

    async def closed() -> None:
        task = asyncio.create_task(engine.generate(request_id="c", prompt_ids=PROMPT, sampling={}))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(engine.close)
        with pytest.raises(RuntimeError, match="the engine was closed"):
            await asyncio.wait_for(task, 10)

    asyncio.run(closed())
    engine.close()
    assert fake.shut_down == 1
    assert threading.active_count() <= before + 1
    with pytest.raises(RuntimeError, match="the engine is closed"):
        ask(engine)


def test_a_failing_start_passes_through(fake: FakeVllm) -> None:
    fake.fails_to_start = True
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="initialization failed"):
        VllmEngine("x", max_num_seqs=1)
    # threads of other tests may end meanwhile
    assert set(threading.enumerate()) <= before


# ---------------------------------------------------------------- stop strings and seeds


def test_a_tag_inside_a_token_ends_both_engines_at_that_token(fake: FakeVllm, engine: VllmEngine) -> None:
    tokenizer = with_word("</think><answer>")
    written = tokenizer.encode("<think> so </think><answer> 1", add_special_tokens=False)
    stops = STOP_STRINGS[Role.LONG]
    fake.reply = lambda prompt, params: written
    fake.text = lambda tokens: tokenizer.decode(tokens, skip_special_tokens=False)
    made = ask(engine, max_tokens=len(written), stop=list(stops))
    ours = StopStrings(tokenizer, stops)
    first = next(n for n in range(1, len(written) + 1) if ours.completed_by_last(written[:n]))
    assert (made.token_ids, made.finish_reason) == (written[:first], "stop")
    # the token cannot be taken apart: what the role wrote behind its tag is a fault of the turn
    turn = parse_turn(Role.LONG, decode_turn(tokenizer, made.token_ids))
    assert turn.fault is Fault.FOREIGN_TAG


def with_word(word: str) -> PreTrainedTokenizerFast:
    """The word-level tokenizer with one more word."""
    words = dict(word_level().get_vocab())
    words[word] = len(words)
    made = Tokenizer(WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", unk_token="<unk>")


def test_white_space_behind_a_tag_is_no_fault() -> None:
    tokenizer = byte_level()
    text = decode_turn(tokenizer, tokenizer.encode("<think>so</think>\n\n", add_special_tokens=False))
    assert parse_turn(Role.LONG, text).ok


def test_stop_strings_need_text_with_special_tokens(fake: FakeVllm, engine: VllmEngine) -> None:
    ask(engine, max_tokens=1, stop=["</think>"])
    (params,) = fake.params
    assert (params.stop, params.detokenize, params.skip_special_tokens) == (["</think>"], True, False)


@given(seed=st.integers(0, 2**62), turns=st.lists(st.integers(1, 10**6), min_size=2, unique=True))
def test_every_turn_has_a_seed_of_its_own(seed: int, turns: list[int]) -> None:
    seeds = [turn_seed(seed, tokens) for tokens in turns]
    assert len(set(seeds)) == len(turns)
    assert all(0 <= made < 2**62 for made in seeds)
    assert seeds == [turn_seed(seed, tokens) for tokens in turns]


def test_for_request_keeps_what_verl_gives() -> None:
    given = {"temperature": 0.9, "logprobs": True, "repetition_penalty": 1.0, "seed": 3, "stop": ["</think>"]}
    made = for_request(given, 10)
    changed = {"seed": turn_seed(3, 10), "skip_special_tokens": False}
    assert made == {**given, **changed}
    # a server that makes all runs repeat sets the seed where there is none
    assert for_request({}, 10) == {"skip_special_tokens": False}


def test_arguments_of_neutral_params_are_vllms_defaults() -> None:
    made = arguments(SamplingParams(), prompt_tokens=4, max_tokens=9)
    assert made["seed"] is None
    assert made["stop"] == made["stop_token_ids"] == []
    assert made["max_tokens"] == 9


def test_a_stream_gives_the_tokens_of_each_step(fake: FakeVllm, engine: VllmEngine) -> None:
    fake.reply = lambda prompt, params: [7, 8, 9, 7]

    async def work() -> tuple[Generation, list[list[int]]]:
        pieces: list[list[int]] = []
        asked = {"prompt_ids": PROMPT, "sampling": {"max_tokens": 4}}
        streaming = engine.stream(request_id="one", **asked, on_piece=lambda piece: pieces.append(list(piece)))
        return await asyncio.wait_for(streaming, 30), pieces

    made, pieces = asyncio.run(work())
    assert (made.token_ids, pieces) == ([7, 8, 9, 7], [[7, 8], [9, 7]])
    assert fake.params[-1].output_kind is RequestOutputKind.CUMULATIVE
