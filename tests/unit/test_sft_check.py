"""What `longshort sft` refuses before any heavy import, and how it says so."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.harness import write_model
from longshort_reward.errors import UserError
from omegaconf import OmegaConf

from verl_longshort.config.compose import compose_config
from verl_longshort.data.sft_rows import held_out_problems
from verl_longshort.verl_plugin.sft.fine_tune import run_and_wait
from verl_longshort.verl_plugin.sft.sft_checks import check, check_rows, count_trajectories

RECORD = {
    "problem": "1 + 1",
    "turns": [
        {"role": "long", "text": "<think> two </think>"},
        {"role": "short", "text": "<answer> 2 </answer>"},
    ],
}


@pytest.fixture
def good(tmp_path: Path) -> list[str]:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    data = tmp_path / "data.jsonl"
    data.write_text((json.dumps(RECORD) + "\n") * 4)
    return [
        "longshort.role=long",
        f"longshort.output_dir={tmp_path}/out",
        f"model.path={model}",
        f"data.train_files={data}",
        "data.train_batch_size=4",
    ]


def test_good_settings_pass(good: list[str]) -> None:
    config = compose_config("sft", good)
    check(config)
    assert config.trainer.default_local_dir == f"{config.longshort.output_dir}.partial"


MISTAKES = {
    "longshort.role=all": "longshort.role = all: must be long, short, both or alone",
    "longshort.system_prompt=hello": "longshort.system_prompt = hello: is of the role alone; those of long are",
    "model.path=./nowhere": "model.path = ./nowhere: no such folder",
    "data.train_files=nowhere.jsonl": "data.train_files = nowhere.jsonl: no such file",
    "data.train_batch_size=5": "data.train_batch_size = 5: must be from 1 to the number of trajectories, 4",
    "trainer.n_gpus_per_node=3": "data.train_batch_size = 4: must be a multiple of the number of devices, 3",
    "optim.lrr=1": "optim.lrr = 1: no such key; did you mean optim.lr?",
    "quite.unknown.thing=1": "no such key; write +quite.unknown.thing=1",
    "optim.lr": "is not an override: write key=value",
    "data.train_files=[1": "give them as key=value",
    "trainer.total_epochs=0": "trainer.total_epochs = 0: set a whole number of 1 or more",
    "trainer.total_epochs=1.5": "trainer.total_epochs = 1.5: set a whole number of 1 or more",
    "trainer.total_training_steps=0": "trainer.total_training_steps = 0: must be from 1 to what the epochs have, 3",
    "trainer.total_training_steps=4": "trainer.total_training_steps = 4: must be from 1 to what the epochs have, 3",
    "trainer.default_local_dir=/tmp": "trainer.default_local_dir = /tmp: is decided by longshort.output_dir",
    "trainer.resume_mode=auto": "trainer.resume_mode = auto: a fine-tuning starts afresh",
    "checkpoint.save_contents=[model]": "checkpoint.save_contents = ['model']: the trained policy is exported from",
    "model.lora_adapter_path=x": "model.lora_adapter_path = x: verl ignores it without model.lora_rank",
    "trainer.save_freq=0": "trainer.save_freq = 0: must be -1, after_each_epoch or a number of steps, 1 or more",
    "trainer.test_freq=often": "trainer.test_freq = often: must be -1, after_each_epoch or a number of steps",
    "trainer.test_freq=2": "trainer.test_freq = 2: there are no held-out trajectories",
    "longshort.held_out=1": "longshort.held_out = 1: must be a share",
    "longshort.held_out=true": "longshort.held_out = True: must be a share",
    "longshort.held_out=0.5": "data.train_batch_size = 4: must be from 1 to the number of trajectories, 0",
    "longshort.export_epoch=first": "longshort.export_epoch = first: must be best, last or null",
    "longshort.export_epoch=best": "longshort.export_epoch = best: needs held-out trajectories",
    "data.val_files=nowhere.jsonl": "data.val_files = nowhere.jsonl: no such file",
    "longshort.output_dir=": "longshort.output_dir = : is empty",
}


@pytest.mark.parametrize(("override", "message"), MISTAKES.items(), ids=MISTAKES.keys())
def test_mistakes_are_named_in_one_line(good: list[str], override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check(compose_config("sft", [*good, override]))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


ODD = {
    "longshort.output_dir": "it's (x=1), 'é'\\'",
    "model.path": "~/a=b",
    "model.tokenizer_path": "m (1)/日本",
    "model.hf_config_path": 'a"b#c`d\\',
    "data.train_files": "a,b;c&d",
    "data.val_files": "a{b}[1]",
    "trainer.project_name": "a<b>!c^d",
    "trainer.experiment_name": "'in quotes'",
}
"""What Hydra reads as something else, or not at all, without quotes."""


def test_any_path_can_be_given(good: list[str]) -> None:
    config = compose_config("sft", [*good, *(f"{key}={path}" for key, path in ODD.items())])
    assert {key: OmegaConf.select(config, key) for key in ODD} == {**ODD, "trainer.experiment_name": "in quotes"}
    assert config.trainer.default_local_dir == f"{config.longshort.output_dir}.partial"


def refused(good: list[str], *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        check(compose_config("sft", [*good, *overrides]))
    assert caught.value.key == "longshort.output_dir"
    assert "\n" not in str(caught.value)
    return caught.value.remedy


def test_only_an_own_model_is_replaced(good: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.write_text("x")
    assert refused(good) == "is a file: give a folder"
    folder.unlink()
    folder.mkdir()
    check(compose_config("sft", good))
    (folder / "config.json").write_text("{}")
    assert "this folder has no longshort_sft.json" in refused(good)
    (folder / "longshort_sft.json").write_text("{}")
    check(compose_config("sft", [*good, f"longshort.output_dir={folder}/"]))
    for name in ("notes.md", "data.jsonl"):
        (folder / name).write_text("x")
        assert f"this folder has {name}, which is no part of one" in refused(good)
        (folder / name).unlink()
    (folder / "global_step_1").mkdir()
    assert "this folder has global_step_1" in refused(good)


def test_nothing_of_the_user_is_removed_from_where_it_works(good: list[str], tmp_path: Path) -> None:
    work = tmp_path / "out.partial"
    (work / "global_step_4").mkdir(parents=True)
    (work / "latest_checkpointed_iteration.txt").write_text("4")
    check(compose_config("sft", good))
    (work / "notes.txt").write_text("x")
    assert refused(good).startswith(f"the command works in {work}, which holds notes.txt")
    shutil.rmtree(work)
    work.write_text("x")
    assert refused(good).startswith(f"the command works in {work}, which holds out.partial")


def test_the_model_that_is_trained_is_not_replaced(good: list[str], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("model")
    for given in ("model", "model/", "link", "model/../model", "."):
        assert "would replace the model" in refused(good, f"longshort.output_dir={tmp_path}/{given}")


SO = {"problem": "so ?", "turns": [{"role": "long", "text": "<think> so </think>"}]}


def test_every_trajectory_is_rendered(good: list[str], tmp_path: Path) -> None:
    def checked(*overrides: str) -> None:
        prompts = "longshort.environment.prompts={long:so,short:''}"
        check_rows(compose_config("sft", [*good, "data.train_batch_size=2", prompts, *overrides]))

    folder, data = write_model(tmp_path / "model"), tmp_path / "data.jsonl"
    long = {**SO, "turns": [{"role": "long", "text": f"<think> {'so ' * 90}</think>"}]}
    data.write_text((json.dumps(SO) + "\n") * 39 + json.dumps(long) + "\n")
    checked()
    # one of 40 may be left out
    checked("data.max_length=50")
    for override, message in {
        "data.max_length=3": r"data\.max_length = 3: the longest .* and 40 of 40 are longer",
        "data.max_token_len_per_gpu=50": r"max_token_len_per_gpu = 50: must hold the longest sequence, \d+ tokens",
        "longshort.environment.prompts.long=unknown": r"model\.path = .*refuses a system message .*Missing \[UNK\]",
    }.items():
        with pytest.raises(UserError, match=message):
            checked(override)
    data.write_text((json.dumps({**SO, "problem": "unknown"}) + "\n") * 2)
    with pytest.raises(UserError, match=r"train_files = trajectory 1 of the role (long|short): cannot be rendered"):
        checked()
    data.write_text((json.dumps(SO) + "\n") * 2)
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    no_system = refusal + "{{ messages[-1].content }}"
    (folder / "chat_template.jinja").write_text(no_system)
    with pytest.raises(UserError, match=r"refuses a system message .*no system role"):
        checked()
    checked("longshort.environment.prompts.long=")
    (folder / "generation_config.json").write_text('{"top_p": 0.5}')
    with pytest.raises(UserError, match=r"refuses to save its generation_config\.json after training .*top_p"):
        checked("longshort.environment.prompts.long=")


def test_problems_are_held_out_whole_and_always_the_same(good: list[str], tmp_path: Path) -> None:
    records = [{**RECORD, "problem": f"problem {n % 10}"} for n in range(40)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert count_trajectories(compose_config("sft", [*good, "longshort.held_out=0.25"])) == 40 - 3 * 4
    chosen = held_out_problems([record["problem"] for record in records], 0.25)
    assert chosen == held_out_problems([record["problem"] for record in reversed(records)], 0.25)
    assert held_out_problems(["a", "b"], 0) == set()
    assert len(held_out_problems(["a", "b", "b"], 0.01)) == 1


def test_batches_of_a_given_size_must_fill_up(good: list[str]) -> None:
    with pytest.raises(UserError, match=r"data\.micro_batch_size_per_gpu = 3: must divide the 4 trajectories"):
        check(compose_config("sft", [*good, "data.use_dynamic_bsz=false", "data.micro_batch_size_per_gpu=3"]))


def test_a_missing_key_is_named(good: list[str]) -> None:
    with pytest.raises(UserError, match=r"longshort\.role = \?\?\?: is required"):
        compose_config("sft", good[1:])


def test_the_model_folder_needs_a_config(good: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        check(compose_config("sft", [*good, f"model.path={tmp_path}"]))


def test_the_command_exits_with_two_and_imports_nothing_heavy(good: list[str]) -> None:
    program = "import sys; import verl_longshort.verl_plugin.sft.__main__ as s; code = s.main(); "
    program += "assert not {'torch', 'verl', 'transformers'} & set(sys.modules); sys.exit(code)"
    command = [sys.executable, "-c", program, *good, "longshort.role=all"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2, result.stderr
    assert result.stderr == "error: longshort.role = all: must be long, short, both or alone\n"


RUN = "from verl_longshort.verl_plugin.sft.fine_tune import run_and_wait as r; import sys; sys.exit(r(sys.argv[1:]))"
CHILD = """
import signal, sys, time
def end(number, frame):
    print("told", number, flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_torchrun_is_told_and_waited_for(number: signal.Signals) -> None:
    command = [sys.executable, "-c", RUN, sys.executable, "-c", CHILD]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    if number is signal.SIGINT:
        os.killpg(parent.pid, number)  # as a terminal does
    else:
        parent.send_signal(number)
    assert (parent.stdout.read(), parent.wait(timeout=30)) == (f"told {number.value}\n", 7)


def test_the_status_of_one_that_was_killed() -> None:
    assert run_and_wait([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 137
