"""What only vLLM's build for CPUs needs, and how it is chosen."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.harness import run_command
from helpers.tiny_tokenizers import byte_level
from transformers import LlamaConfig, LlamaForCausalLM

from verl_longshort.core.trajectory import Generation
from verl_longshort.engines.vllm import ON_CPU, VLLM, VllmEngine

WATCHDOG_S = 120
TOKENS = 700
"""Of a prompt: two of them do not fit into a step of the model together."""

IS_CPU_BUILD = VLLM.installed and VLLM.runs_without_gpu()

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(not IS_CPU_BUILD, reason="needs vLLM's build for CPUs")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
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
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sampled(model: Path, **options: Any) -> list[list[int]]:
    """What four seeded requests with long prompts that arrive at once sample."""
    given = {"enforce_eager": True, "dtype": "float32", "kv_cache_memory_bytes": 2**28, "max_num_batched_tokens": 1024}
    prompts = [[20 + (7 * place + number) % 200 for place in range(TOKENS)] for number in range(4)]

    async def ask(engine: VllmEngine) -> list[Generation]:
        keys = [{"max_tokens": 8, "temperature": 1.0, "seed": seed, "ignore_eos": True} for seed in range(4)]
        asked = [
            engine.generate(request_id=f"r{number}", prompt_ids=prompt, sampling=keys[number])
            for number, prompt in enumerate(prompts)
        ]
        return await asyncio.wait_for(asyncio.gather(*asked), WATCHDOG_S)

    with VllmEngine(str(model), max_num_seqs=8, options={**given, **options}) as engine:
        first, second = (asyncio.run(ask(engine)) for _ in range(2))
    assert [made.token_ids for made in first] == [made.token_ids for made in second]
    return [made.token_ids for made in first]


def test_seeded_requests_with_long_prompts(model: Path) -> None:
    assert all(len(tokens) == 8 for tokens in sampled(model))


def test_chunked_prefill_still_ends_an_engine_with_seeded_requests(model: Path) -> None:
    """When this fails, `ON_CPU` has a setting that is not needed any more."""
    assert ON_CPU == {"enable_chunked_prefill": False}
    with pytest.raises(Exception, match="EngineCore encountered an issue"):
        sampled(model, enable_chunked_prefill=True)


def test_doctor_names_the_rollout(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "verl_longshort.cli", "doctor", "--no-ray"]
    done = run_command(command, log=tmp_path / "log.txt", timeout_s=180)
    assert "VllmReplica, VllmAdapter" in " ".join(done.output.split()), done.tail
