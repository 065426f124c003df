"""verl's FSDP engines on a CPU with two ranks: shards, a reference model, a critic with its value head."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.harness import run_command
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.integration
PROBE = Path(__file__).parents[1] / "helpers" / "fsdp_probe.py"
Facts = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def ranks(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Facts]:
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(PROBE), str(tiny_model), str(folder)]
    run_command(command, log=folder / "log.txt", timeout_s=120).expect_success()
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("kind", ["actor", "reference"])
def test_language_model_computes_what_transformers_does(ranks: list[Facts], tiny_model: Path, kind: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    expected = model(input_ids=torch.arange(6)[None]).logits.flatten()[:8].tolist()
    for rank in ranks:
        assert rank[kind]["class"] == "CPULanguageModelEngine"
        assert rank[kind]["logits"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["actor", "reference", "critic"])
def test_weights_are_sharded_on_the_cpu(ranks: list[Facts], kind: str) -> None:
    assert {device for rank in ranks for device in rank[kind]["devices"]} == {"cpu"}
    assert sum(rank[kind]["local"] for rank in ranks) == ranks[0][kind]["total"]
    assert all(0 < rank[kind]["local"] < rank[kind]["total"] for rank in ranks)


def test_reference_has_no_optimizer_and_keeps_its_config(ranks: list[Facts]) -> None:
    assert ranks[0]["reference"]["forward_only"] is True
    assert ranks[0]["reference"]["optimizer"] is False
    assert ranks[0]["actor"]["optimizer"] is True


def test_critic_has_one_value_per_token_and_one_head_for_all_ranks(ranks: list[Facts]) -> None:
    for rank in ranks:
        assert rank["critic"]["class"] == "CPUValueModelEngine"
        assert rank["critic"]["module"] == "LlamaForTokenClassification"
        assert rank["critic"]["model_type"] == "value_model"
        assert rank["critic"]["shape"] == [1, 6, 1]
    assert ranks[0]["critic"]["logits"] == ranks[1]["critic"]["logits"]
