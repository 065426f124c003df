"""SFT rows: what is learnt, that they equal the rollout's, and what is refused."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role, RolePrompts
from verl.utils.dataset.dataset_utils import SFTTensorCollator

from verl_longshort.core.environment import Environment, Limits
from verl_longshort.core.trajectory import Generation, Participant, run_trajectory
from verl_longshort.data.records import load_trajectories
from verl_longshort.data.sft_dataset import TrajectoryDataset
from verl_longshort.world.tiny_tokenizer import build_tokenizer

PROBLEM = "start 7 ; a ( 5 1 ) ; b 9 ?"
TURNS = [
    ("long", "<think> list a : 5 + 7 = 2 so a = 3 . </think>"),
    ("short", "<answer> so b </rethink>"),
    ("long", "<think> step b 9 + 3 = 2 . </think>"),
    ("short", "<answer> \\boxed{ 2 } </answer>"),
]
RECORD = {
    "problem": PROBLEM,
    "ground_truth": "2",
    "turns": [{"role": role, "text": text} for role, text in TURNS],
}
PROMPTS = RolePrompts(long="", short="so we check")


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pd.DataFrame(records).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def _settings(role: str, **config: Any) -> dict[str, Any]:
    prompts = {"long": PROMPTS.long, "short": PROMPTS.short}
    return {"role": role, "prompts": prompts, "max_length": 200, **config}


def dataset(path: Path, role: str, **config: Any) -> TrajectoryDataset:
    return TrajectoryDataset(str(path), build_tokenizer(), _settings(role, **config))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_loss_is_on_the_own_turns(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"data.{kind}", [RECORD])
    for role in ROLES:
        row = dataset(path, role)[0]
        learnt = build_tokenizer().decode(row["input_ids"][row["loss_mask"] == 1])
        assert learnt == " ".join(text for speaker, text in TURNS if speaker == role)
        assert row["position_ids"].tolist() == list(range(len(row["input_ids"])))


def test_one_model_for_both_roles_has_the_rows_of_both(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [RECORD, RECORD, {**RECORD, "turns": RECORD["turns"][:1]}])
    rows = dataset(path, "both").rows
    alone = {role: dataset(path, role).rows for role in ROLES}
    assert [len(alone[role]) for role in ROLES] == [3, 2]
    expected = [
        alone[Role.LONG][0],
        alone[Role.SHORT][0],
        alone[Role.LONG][1],
        alone[Role.SHORT][1],
        alone[Role.LONG][2],
    ]
    for row, other in zip(rows, expected, strict=True):
        assert all(torch.equal(row[name], other[name]) for name in row)
    # a share of the rows has both roles
    some = TrajectoryDataset(str(path), build_tokenizer(), _settings("both"), max_samples=2)
    assert [len(row["input_ids"]) for row in some.rows] == [len(row["input_ids"]) for row in rows[:2]]


def test_rows_equal_the_views_of_a_rollout(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    texts = iter(text for _, text in TURNS)

    async def speak(*, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        ids = tokenizer.encode(next(texts), add_special_tokens=False)
        return Generation(token_ids=ids, logprobs=None, finish_reason="stop")

    participants = {role: Participant(tokenizer=tokenizer, generate=speak) for role in ROLES}
    limits = Limits(max_turns=8, long_turn_tokens=50, short_turn_tokens=50, token_budget=200)
    trajectory = asyncio.run(run_trajectory(PROBLEM, participants, Environment(limits), PROMPTS, {}))
    path = write(tmp_path / "data.jsonl", [trajectory.to_record()])
    for role in ROLES:
        row, view = dataset(path, role)[0], trajectory.views[role]
        assert row["input_ids"].tolist() == view.context_ids
        assert row["loss_mask"].tolist() == [0] * len(view.prompt_ids) + view.response_mask


def test_verl_collates_the_rows(tmp_path: Path) -> None:
    short = {**RECORD, "turns": RECORD["turns"][:2]}
    rows = dataset(write(tmp_path / "data.jsonl", [RECORD, short]), "long")
    batch = SFTTensorCollator("no_padding")([rows[0], rows[1]])
    assert batch["input_ids"].is_nested
    assert batch["input_ids"].offsets().diff().tolist() == [
        len(rows[0]["input_ids"]),
        len(rows[1]["input_ids"]),
    ]
    assert batch["loss_mask"].dtype == torch.int64


def test_max_samples_keeps_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [RECORD] * 3)
    settings = {"role": "long", "prompts": {"long": "", "short": ""}, "max_length": 200}
    assert len(TrajectoryDataset([path], build_tokenizer(), settings, max_samples=2)) == 2


def test_records_without_a_turn_of_the_role_are_left_out(tmp_path: Path) -> None:
    only_long = {**RECORD, "turns": RECORD["turns"][:1]}
    path = write(tmp_path / "data.jsonl", [RECORD, only_long])
    assert (len(dataset(path, "long")), len(dataset(path, "short"))) == (2, 1)


def test_a_long_sequence_is_refused_not_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [RECORD])
    with pytest.raises(UserError, match=r"data\.max_length = 20: the longest sequence has \d+ tokens"):
        dataset(path, "long", max_length=20)


BROKEN = {
    "no column": ({"problem": PROBLEM}, "lacks the column 'turns'"),
    "role": ({**RECORD, "turns": [{"role": "user", "text": "x"}]}, "has the role 'user'"),
    "turn": ({**RECORD, "turns": [{"text": "x"}]}, "turn 1 must be"),
    "fault": ({**RECORD, "turns": [{"role": "long", "text": "<think> so"}]}, "turn 1 breaks the protocol"),
    "nothing to learn": (
        {**RECORD, "turns": RECORD["turns"][:1]},
        "no record has a turn of the role 'short'",
    ),
}


@pytest.mark.parametrize(("record", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_records_are_named(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "data.jsonl", [record])
    with pytest.raises(UserError, match=message):
        load_trajectories(path, Role.SHORT)


def test_broken_files_are_named(tmp_path: Path) -> None:
    not_json, empty, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "c.txt"
    not_json.write_text("{\n")
    empty.write_text("")
    other.write_text("x")
    (tmp_path / "d.parquet").write_text("x")
    expected = {
        "a.jsonl": "line 1 is not JSON",
        "b.jsonl": "has no records",
        "c.txt": "unknown kind '.txt'",
        "d.parquet": "is not a parquet file",
        "e.jsonl": "no such file",
    }
    for name, message in expected.items():
        with pytest.raises(UserError, match=message) as caught:
            load_trajectories(tmp_path / name, Role.LONG)
        assert "\n" not in str(caught.value)
