"""The vLLM engine beside the transformers engine, on one tiny model. Needs vLLM and a GPU, or its CPU build.

docs/engine.md says what this was run with.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers.tiny_tokenizers import byte_level
from transformers import LlamaConfig, LlamaForCausalLM

from verl_longshort.core.trajectory import Generation
from verl_longshort.engines.transformers_engine import TransformersEngine
from verl_longshort.engines.vllm import VLLM, VllmEngine

WATCHDOG_S = 120
PROMPT = list(range(40, 60))
ON_GPU = torch.cuda.is_available()


CAN_RUN = VLLM.installed and (ON_GPU or VLLM.runs_without_gpu())

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(not CAN_RUN, reason="needs vLLM and a GPU, or its CPU build")]


class Engines(NamedTuple):
    vllm: VllmEngine
    transformers: TransformersEngine
    model: LlamaForCausalLM

    def ask(self, prompt: list[int], **sampling: Any) -> tuple[Generation, Generation]:
        async def both() -> list[Generation]:
            engines = (self.vllm, self.transformers)
            keys = {"max_tokens": 24, "logprobs": 1, "ignore_eos": True, **sampling}
            asked = [e.generate(request_id="r", prompt_ids=prompt, sampling=keys) for e in engines]
            return await asyncio.wait_for(asyncio.gather(*asked), WATCHDOG_S)

        first, second = asyncio.run(both())
        return first, second

    def scores(self, prompt: list[int], answer: list[int], temperature: float) -> list[float]:
        with torch.no_grad():
            logits = self.model(torch.tensor([prompt + answer], device=self.model.device)).logits[0]
        logprobs = torch.log_softmax(logits[len(prompt) - 1 : -1].float() / temperature, -1)
        chosen = logprobs.gather(1, torch.tensor(answer, device=logprobs.device)[:, None])
        return [float(x) for x in chosen[:, 0]]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    folder = Path(tmp_path_factory.mktemp("model"))
    torch.manual_seed(0)
    tokenizer = byte_level()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = model.to("cuda" if ON_GPU else "cpu")
    options = {"enforce_eager": True, "dtype": "float32"}
    with (
        TransformersEngine(model, tokenizer, max_num_seqs=8, eos_token_ids=[tokenizer.eos_token_id]) as plain,
        VllmEngine(str(folder), max_num_seqs=8, gpu_memory_utilization=0.3, options=options) as vllm,
    ):
        yield Engines(vllm, plain, model)


def test_greedy_tokens_and_log_probs_agree(engines: Engines) -> None:
    ours, theirs = engines.ask(PROMPT, temperature=0.0)
    assert ours.token_ids == theirs.token_ids
    assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-3)
    assert (ours.finish_reason, theirs.finish_reason) == ("length", "length")
    assert engines.vllm.max_model_len == engines.transformers.max_model_len


def test_both_stop_at_the_token_that_completes_the_string(engines: Engines) -> None:
    tokenizer = byte_level()
    whole, _ = engines.ask(PROMPT, temperature=0.0)
    pieces = [tokenizer.decode([token]) for token in whole.token_ids]
    long = next(place for place, text in enumerate(pieces) if place > 1 and len(text) > 1 and text.isascii())
    # ends inside that token: its text goes on behind the string
    stop = (pieces[long - 1] + pieces[long])[:-1]
    ours, theirs = engines.ask(PROMPT, temperature=0.0, stop=[stop])
    assert ours.token_ids == theirs.token_ids
    assert ours.finish_reason == theirs.finish_reason == "stop"
    assert stop in tokenizer.decode(ours.token_ids)
    assert stop not in tokenizer.decode(ours.token_ids[:-1])


def test_log_probs_are_those_of_the_scaled_distribution(engines: Engines) -> None:
    ours, _ = engines.ask(PROMPT, temperature=0.7, seed=5)
    assert ours.logprobs == pytest.approx(engines.scores(PROMPT, ours.token_ids, 0.7), abs=1e-3)


def test_a_seed_decides_the_draws(engines: Engines) -> None:
    draws = [engines.ask(PROMPT, temperature=2.0, seed=seed)[0].token_ids for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_stop_tokens_stay_in_the_answer(engines: Engines) -> None:
    whole, _ = engines.ask(PROMPT, temperature=0.0)
    ours, theirs = engines.ask(PROMPT, temperature=0.0, stop_token_ids=[whole.token_ids[4]])
    assert ours.token_ids == theirs.token_ids == whole.token_ids[: len(ours.token_ids)]
    assert ours.finish_reason == theirs.finish_reason == "stop"
    assert ours.token_ids[-1] == whole.token_ids[4]


def test_a_common_beginning_is_found(engines: Engines) -> None:
    prompt = [20 + place % 200 for place in range(400)]
    engines.ask(prompt, temperature=0.0, max_tokens=1)
    ours, _ = engines.ask([*prompt[:300], 7, 8, 9], temperature=0.0)
    assert ours.extra["reused_tokens"] >= 128


def test_what_does_not_fit_is_refused(engines: Engines) -> None:
    with pytest.raises(ValueError, match="exceed the model length of 1024"):
        engines.ask(PROMPT, max_tokens=1024)


def test_requests_of_two_event_loops_and_a_cancelled_one(engines: Engines) -> None:
    async def cancelled() -> None:
        keys = {"max_tokens": 900, "ignore_eos": True}
        task = asyncio.create_task(engines.vllm.generate(request_id="c", prompt_ids=PROMPT, sampling=keys))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert engines.ask(PROMPT, temperature=0.0)[0].finish_reason == "length"
