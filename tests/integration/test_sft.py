"""verl's own SFT trainer on a tiny random model: it learns its role's turns and leaves a usable folder."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from verl_longshort.base import progress
from verl_longshort.base.model_files import stored_dtype
from verl_longshort.data.sft_dataset import TrajectoryDataset
from verl_longshort.world.tiny_tokenizer import build_tokenizer

pytestmark = pytest.mark.integration

OUT = "lr=2e-2 (é)"
RECORDS = [
    {
        "problem": f"start {digit} ; a 0 ?",
        "turns": [
            {"role": "long", "text": f"<think> step a 0 + {digit} = {digit} . </think>"},
            {"role": "short", "text": f"<answer> \\boxed{{ {digit} }} </answer>"},
        ],
    }
    for digit in range(10)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder, tokenizer = tmp_path_factory.mktemp("base"), build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


MODULE = ("verl_longshort.verl_plugin.sft",)
COMMAND = ("verl_longshort.cli", "sft")


def start(base: Path, work: Path, *overrides: str, run: Sequence[str] = MODULE) -> "subprocess.Popen[str]":
    data = work / "data.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    command = [
        sys.executable,
        "-m",
        *run,
        "longshort.role=short",
        f"model.path={base}",
    ]
    command += [f"data.train_files={data}", f"longshort.output_dir={work / OUT}/", "data.train_batch_size=4"]
    command += ["longshort.environment.prompts={long:'',short:''}", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", progress.VARIABLE: str(work / "progress.json")}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def loss(folder: Path, data: Path, row: int = 3) -> float:
    model = AutoModelForCausalLM.from_pretrained(folder)
    settings = {"role": "short", "prompts": {"long": "", "short": ""}, "max_length": 100}
    record = TrajectoryDataset(str(data), AutoTokenizer.from_pretrained(folder), settings)[row]
    labels = record["input_ids"].masked_fill(record["loss_mask"] == 0, -100)
    return model(input_ids=record["input_ids"][None], labels=labels[None]).loss.item()


def test_learns_and_exports(base: Path, tmp_path: Path) -> None:
    folder, data = tmp_path / OUT, tmp_path / "data.jsonl"
    folder.mkdir()
    for name in ("config.json", "longshort_sft.json", "of_the_older_model.json"):
        (folder / name).write_text("{}")
    overrides = ("trainer.total_epochs=6", "optim.lr=2e-2", "longshort.held_out=0.2")
    process = start(base, tmp_path, *overrides, run=COMMAND)
    output, _ = process.communicate(timeout=180)
    printed = (tmp_path / f"{OUT}.log").read_text()
    assert process.returncode == 0, f"{printed[-3000:]}\n{output}"
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"} == {
        OUT,
        f"{OUT}.log",
        f"{OUT}.txt",
        "data.jsonl",
        "progress.json",
    }
    # the console is for people, and the rest is in the log
    console = output.splitlines()
    assert console[0] == f"Log: {tmp_path / OUT}.log"
    assert "trained on 8 trajectories: loss " in console[-1]
    assert all(line.startswith("sft ") for line in console[1:-1])
    assert "train/loss" in printed
    assert loss(folder, data) < loss(base, data) - 1
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == build_tokenizer().chat_template
    summary = json.loads((folder / "longshort_sft.json").read_text())
    assert (summary["role"], summary["steps"], summary["trajectories"], summary["held_out"]) == ("short", 12, 8, 2)
    assert summary["losses"][-1] < summary["losses"][0]
    # one update warms up, and none is lost to a rate of 0
    assert summary["learning_rates"][0] == max(summary["learning_rates"]) == pytest.approx(2e-2)
    assert min(summary["learning_rates"]) > 0
    # 8 trajectories in each of 6 epochs, in which the short role writes 5 tokens
    assert (summary["learned_tokens"], summary["seconds"] > 0) == (6 * 8 * 5, True)
    held_out = [epoch["held_out_loss"] for epoch in summary["epochs"]]
    assert summary["exported_epoch"] == 1 + held_out.index(min(held_out))
    assert held_out[-1] < held_out[0]
    reported = progress.read(tmp_path / "progress.json")
    assert reported is not None
    assert (reported.done, reported.total) == (12, 12)
    assert stored_dtype(folder) == json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((folder / "longshort_policy.json").read_text())["prompts"] == {"long": "", "short": ""}
    # plain transformers ends a turn at these
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert set(tokenizer.convert_tokens_to_ids(["<eos>", "</answer>", "</rethink>"])) == set(ends)
    assert not (folder / "of_the_older_model.json").exists()


def test_one_model_learns_whole_trajectories(base: Path, tmp_path: Path) -> None:
    process = start(base, tmp_path, "longshort.role=alone", "trainer.total_epochs=1")
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output[-3000:]
    summary = json.loads((tmp_path / OUT / "longshort_sft.json").read_text())
    # two batches of 4 trajectories, of which every token is taught: 10 of the thought and 5 of the answer
    assert (summary["role"], summary["steps"], summary["learned_tokens"]) == ("alone", 2, 2 * 4 * 15)
    # it plays no role, and its answer ends with the whole trajectory
    assert not (tmp_path / OUT / "longshort_policy.json").exists()


def test_a_killed_run_leaves_no_model(base: Path, tmp_path: Path) -> None:
    process = start(base, tmp_path, "trainer.total_epochs=100000", "trainer.save_freq=1")
    assert process.stdout is not None
    for line in process.stdout:
        if "Saved hf_model" in line or "Updated checkpoint tracker" in line:
            break
    process.kill()
    process.communicate(timeout=30)
    assert not (tmp_path / OUT).exists()
    assert (tmp_path / f"{OUT}.partial").exists()


@pytest.mark.slow
def test_lora_is_exported_merged(base: Path, tmp_path: Path) -> None:
    """The loss of the exported folder is the one that was measured with the adapter in training."""
    lora = ("model.lora_rank=8", "model.lora_alpha=32", "longshort.export_epoch=last")
    held_out = f"data.val_files={tmp_path / 'data.jsonl'}"
    process = start(base, tmp_path, "trainer.total_epochs=8", "optim.lr=2e-2", held_out, *lora)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output[-3000:]
    folder, data = tmp_path / OUT, tmp_path / "data.jsonl"
    measured = json.loads((folder / "longshort_sft.json").read_text())["epochs"][-1]["held_out_loss"]
    rows = range(len(RECORDS))
    # all own turns have the same number of tokens
    assert sum(loss(folder, data, row) for row in rows) / len(RECORDS) == pytest.approx(measured, abs=0.05)
    assert measured < sum(loss(base, data, row) for row in rows) / len(RECORDS) - 0.3
