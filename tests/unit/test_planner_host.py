"""Training without an accelerator: what may not fit into the machine's memory is said before it starts."""

import json
from pathlib import Path
from typing import Any

import pytest

from verl_longshort.base.requirements import (
    EngineUse,
    FineTuningWork,
    PolicyUse,
    ReinforcementWork,
    Requirements,
    TrainedModel,
)
from verl_longshort.planner import host
from verl_longshort.planner.host import fitting_tokens, host_parts, host_problem, warn_of_memory
from verl_longshort.planner.models import ModelShape
from verl_longshort.recipe.assumptions import GIB

SMALL = ModelShape(
    layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, head_dim=64, vocabulary=49_152, tied=True
)
TINY = ModelShape(layers=2, hidden=64, intermediate=128, heads=2, kv_heads=2, head_dim=32, vocabulary=64, tied=True)


def trained(model: str = "m", **changes: Any) -> TrainedModel:
    """As verl's defaults on a CPU: float32, nothing compiled, no gradient checkpointing."""
    defaults = {"gpus": 1, "shards": 1, "compute_bytes": 4, "tokens": 16_384, "forward_tokens": 16_384}
    more = {"checkpointing": False, "compiled": False, "copies_logits": True, "reference": True}
    return TrainedModel(model=model, **{**defaults, **more, **changes})


def pair(
    prompts: int = 256, model: str = "m", prompt_tokens: int = 1024, new_tokens: int = 4096, **changes: Any
) -> Requirements:
    engine = EngineUse(model=model, name="transformers", bytes_per_value=4)
    policy = PolicyUse(engine=engine, trained=trained(model, **changes), updates=8)
    work = ReinforcementWork(
        policies={"long": policy, "short": policy},
        shared_pool=True,
        steps=8,
        prompts=prompts,
        samples=8,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        validations=0,
        validation_problems=None,
        checkpoints=0,
    )
    return Requirements(command="train", work=work)


def problem(needs: Requirements, shape: ModelShape, gib: float = 24) -> str | None:
    return host_problem(host_parts(needs, lambda _: shape), gib * GIB)


def test_a_small_model_with_verls_defaults_may_not_fit() -> None:
    said = problem(pair(), SMALL)
    assert said is not None
    for words in (
        "GiB of host memory on a machine with 24",
        "logits of ",
        "activations of ",
        "ppo_max_token_len_per_gpu",
    ):
        assert words in said
    assert problem(pair(), SMALL, 256) is None


def test_what_makes_it_fit() -> None:
    assert problem(pair(tokens=5120, forward_tokens=5120, checkpointing=True), SMALL) is None
    # a step that has fewer tokens than a micro batch may have
    assert problem(pair(prompts=1, tokens=10**9, forward_tokens=10**9), TINY) is None
    assert problem(pair(), TINY, 8) is None


def test_tokens_that_fit_are_named() -> None:
    memory = 24 * GIB
    needs = pair(prompt_tokens=256, new_tokens=256, checkpointing=True)
    tokens = fitting_tokens(needs, lambda _: SMALL, memory)
    assert tokens is not None
    assert problem(pair(tokens=tokens, forward_tokens=tokens, checkpointing=True), SMALL) is None
    assert problem(pair(tokens=2 * tokens, forward_tokens=2 * tokens, checkpointing=True), SMALL) is not None
    assert f"({tokens} fit)" in str(host_problem(host_parts(needs, lambda _: SMALL), memory, tokens))
    # a micro batch holds the longest row at least
    assert fitting_tokens(pair(), lambda _: SMALL, 8 * GIB) is None
    assert fitting_tokens(Requirements(command="world"), lambda _: SMALL, memory) is None
    work = FineTuningWork(trained=trained(reference=False), records=10, epochs=1, record_tokens=200)
    assert fitting_tokens(Requirements(command="sft", work=work), lambda _: SMALL, memory) in (2048, 4096, 8192)


def test_fine_tuning_counts_too() -> None:
    work = FineTuningWork(trained=trained(reference=False), records=10, epochs=1, record_tokens=5120)
    needs = Requirements(command="sft", work=work)
    assert problem(needs, SMALL) is not None
    assert problem(needs, TINY) is None


def test_a_gpu_is_none_of_its_business() -> None:
    assert host_parts(Requirements(command="train", work=pair().work, gpus_per_node=8), lambda _: SMALL) == {}
    assert host_parts(Requirements(command="world"), lambda _: SMALL) == {}


def test_a_training_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = {"num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9}
    more = {"num_key_value_heads": 3, "vocab_size": 49_152, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps({**shape, **more}))
    monkeypatch.setattr(host, "machine_bytes", lambda: 24 * GIB)
    warn_of_memory(pair(model=str(tmp_path)))
    assert capsys.readouterr().out.startswith("note: train may take ")
    (tmp_path / "config.json").write_text("{}")
    warn_of_memory(pair(model=str(tmp_path)))
    warn_of_memory(Requirements(command="world"))
    assert capsys.readouterr().out == ""
