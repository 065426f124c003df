"""`longshort serve` in front of real vLLM servers: one for each role, and one that serves both roles as adapters."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from helpers.harness import sums
from helpers.pair_runs import PairRun
from helpers.serving import NO_PROMPTS, Served, seen_answer, serve_settings, served
from helpers.speakers import write_tied_speaker
from longshort_reward.protocol import ROLES, Role
from peft import PeftModel
from transformers import AutoModelForCausalLM

from verl_longshort.engines.vllm import VLLM

START_S = 300
PROBLEMS = [problem for problem, _ in sums(8)]
LIMITS = [NO_PROMPTS, "longshort.environment.token_budget=60", "longshort.temperature=0"]

CAN_RUN = VLLM.installed and (torch.cuda.is_available() or VLLM.runs_without_gpu())

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not CAN_RUN, reason="needs vLLM and a GPU, or its CPU build"),
]


@contextmanager
def vllm_server(model: Path, name: str, log: Path, *more: str) -> Iterator[str]:
    """vLLM's own server of a model; its URL up to and with `/v1`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # seeded requests and prompts in pieces do not go together on a CPU (docs/engine.md)
    length = ["--max-model-len", "256", "--max-num-batched-tokens", "4096", "--no-enable-chunked-prefill"]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += ["--dtype", "float32", "--max-num-seqs", "8", "--kv-cache-memory-bytes", str(2**26), *length, *more]
    with log.open("wb") as out:
        alone = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **alone})
    try:
        until = time.monotonic() + START_S
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def asked(running: Served, *, stream: bool, sampling: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a client sees of the answers to the problems, asked for one after the other."""
    asker = openai.OpenAI(base_url=running.url, api_key="any", max_retries=0, timeout=120)
    requests = [{"model": "longshort", "messages": [{"role": "user", "content": problem}]} for problem in PROBLEMS]
    return [seen_answer(asker, {**request, **sampling}, stream=stream) for request in requests]


def in_process(models: Mapping[Role, Path]) -> list[dict[str, Any]]:
    paths = [f"longshort.models.{role}={models[role]}" for role in ROLES]
    with served(serve_settings([*paths, *LIMITS])) as running:
        return asked(running, stream=False, sampling={})


def behind(urls: Mapping[Role, str], names: Mapping[Role, str], tokenizers: Mapping[Role, Path]) -> Sequence[str]:
    """Keys of a server in front of these."""
    return [
        *(f"longshort.endpoint.base_url.{role}={urls[role]}" for role in ROLES),
        *(f"longshort.models.{role}={names[role]}" for role in ROLES),
        *(f"longshort.endpoint.tokenizer.{role}={tokenizers[role]}" for role in ROLES),
        *LIMITS,
    ]


def check(keys: Sequence[str], expected: list[dict[str, Any]]) -> None:
    """Greedy answers are those of the engine in this process, whole and streamed; sampled ones depend on the seed."""
    with served(serve_settings(keys)) as running:
        assert asked(running, stream=False, sampling={}) == expected
        assert asked(running, stream=True, sampling={}) == expected
        sampled = [
            asked(running, stream=stream, sampling={"temperature": 1.0, "seed": seed})
            for seed, stream in ((1, False), (1, True), (2, False))
        ]
        assert sampled[0] == sampled[1] != sampled[2]


def test_two_servers(speakers: dict[Role, Path], tmp_path: Path) -> None:
    expected = in_process(speakers)
    assert any(one["stop_reason"] == "answered" for one in expected)
    with ExitStack() as servers:
        urls = {
            role: servers.enter_context(vllm_server(speakers[role], str(role), tmp_path / f"{role}.log"))
            for role in ROLES
        }
        check(behind(urls, {role: str(role) for role in ROLES}, speakers), expected)


def test_adapters_of_a_trained_pair_in_peft_and_on_one_server(tmp_path: Path) -> None:
    base = write_tied_speaker(tmp_path / "base")[Role.LONG]
    learns = ["actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.actor.optim.lr=5e-2", "trainer.test_freq=-1"]
    steps = ["longshort.schedule=[both]", "longshort.steps_per_round=2"]
    (tmp_path / "run").mkdir()
    run = PairRun(folder=tmp_path / "run", models=dict.fromkeys(ROLES, base), overrides=[*steps, *learns])
    run.to_end().expect_success()
    actors = {role: run.checkpoints / role / "global_step_2" / "actor" for role in ROLES}
    adapters, merged = ({role: actor / name for role, actor in actors.items()} for name in ("adapter", "huggingface"))
    both_in_one_peft_model(base, adapters, merged)
    expected = in_process(merged)
    assert expected != in_process(dict.fromkeys(ROLES, base))
    lora = [f"{role}={adapters[role]}" for role in ROLES]
    options = ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2", "--lora-modules", *lora]
    with vllm_server(base, "base", tmp_path / "server.log", *options) as url:
        names = {role: str(role) for role in ROLES}
        check(behind(dict.fromkeys(ROLES, url), names, dict.fromkeys(ROLES, base)), expected)


def both_in_one_peft_model(base: Path, adapters: Mapping[Role, Path], merged: Mapping[Role, Path]) -> None:
    plain = AutoModelForCausalLM.from_pretrained(base)
    model = PeftModel.from_pretrained(plain, str(adapters[Role.LONG]), adapter_name=Role.LONG.value)
    model.load_adapter(str(adapters[Role.SHORT]), adapter_name=Role.SHORT.value)
    ids = torch.arange(1, 12)[None]
    for role in ROLES:
        model.set_adapter(role.value)
        with torch.no_grad():
            whole = AutoModelForCausalLM.from_pretrained(merged[role])(ids).logits
            torch.testing.assert_close(model(ids).logits, whole, rtol=1e-4, atol=1e-4)
