"""What `longshort sft` refuses before any heavy import, and how it says so."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from longshort_reward.errors import UserError

from verl_longshort.config.compose import compose_config
from verl_longshort.verl_plugin.trainer.sft import check, run_and_wait

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
    "longshort.role=both": "longshort.role = both: must be long or short",
    "model.path=./nowhere": "model.path = ./nowhere: no such folder",
    "data.train_files=nowhere.jsonl": "data.train_files = nowhere.jsonl: no such file",
    "data.train_batch_size=5": "data.train_batch_size = 5: must be from 1 to the number of trajectories, 4",
    "trainer.n_gpus_per_node=3": "data.train_batch_size = 4: must be a multiple of the number of devices, 3",
    "optim.lrr=1": "optim.lrr = 1: no such key; did you mean optim.lr?",
    "quite.unknown.thing=1": "no such key; write +quite.unknown.thing=1",
    "optim.lr": "is not an override: write key=value",
    "data.train_files=[1": "give them as key=value",
}


@pytest.mark.parametrize(("override", "message"), MISTAKES.items(), ids=MISTAKES.keys())
def test_mistakes_are_named_in_one_line(good: list[str], override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check(compose_config("sft", [*good, override]))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(good: list[str]) -> None:
    with pytest.raises(UserError, match=r"longshort\.role = \?\?\?: is required"):
        compose_config("sft", good[1:])


def test_the_model_folder_needs_a_config(good: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        check(compose_config("sft", [*good, f"model.path={tmp_path}"]))


def test_the_command_exits_with_two_and_imports_nothing_heavy(good: list[str]) -> None:
    program = "import sys; import verl_longshort.verl_plugin.trainer.sft as s; code = s._main(); "
    program += "assert not {'torch', 'verl', 'transformers'} & set(sys.modules); sys.exit(code)"
    command = [sys.executable, "-c", program, *good, "longshort.role=both"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2, result.stderr
    assert result.stderr == "error: longshort.role = both: must be long or short\n"


RUN = "from verl_longshort.verl_plugin.trainer.sft import run_and_wait as r; import sys; sys.exit(r(sys.argv[1:]))"
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
