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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(tiny_model: Path, folder: Path) -> list[Facts]:
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


def test_merged_adapters_are_sent_as_the_actor_computes(ranks: list[Facts], tiny_model: Path, folder: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    expected = plain(input_ids=torch.arange(6)[None]).logits
    for number, rank in enumerate(ranks):
        assert rank["sent"] == {"unchanged": True, "dtypes": ["torch.float32"]}
        sent = torch.load(folder / f"sent{number}.pt")
        torch.testing.assert_close(sent["base"], expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(sent["logits"], expected, atol=1e-2)
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        assert not model.load_state_dict(sent["weights"], strict=False).unexpected_keys
        logits = model(input_ids=torch.arange(6)[None]).logits
        torch.testing.assert_close(logits, sent["logits"], rtol=1e-5, atol=1e-5)


def test_adapters_are_saved_alone_and_resumed_bit_by_bit(ranks: list[Facts]) -> None:
    for rank in ranks:
        assert rank["resumed"] == {"different": True, "loaded": True, "goes on alike": True, "alone": True}


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
