"""Files that name other files are used from another folder, those of the previous version too."""

import json
from pathlib import Path

import pytest
from longshort_reward.errors import UserError

from verl_longshort.base.files import absolute_model, recorded_model
from verl_longshort.base.journal import RecordFile

KEY = "longshort.tokenizer"


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of records in `<project>/runs/tiny`, beside its model; the working directory is another one."""
    model = tmp_path / "project" / "runs" / "tiny" / "base"
    model.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return model.parent / "weighed.jsonl"


def test_folders_are_written_as_absolute_paths(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(records.parents[2])
    assert absolute_model("runs/tiny/base") == str(records.parent / "base")
    assert absolute_model("org/model") == "org/model"
    assert absolute_model("gpt2") == "gpt2"


@pytest.mark.parametrize("name", ["runs/tiny/base", "tiny/base", "base"])
def test_a_relative_path_is_looked_for_above_the_file(records: Path, name: str) -> None:
    assert recorded_model(name, records, key=KEY) == str(records.parent / "base")


def test_the_working_directory_comes_first(records: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "base").mkdir()
    assert recorded_model("base", records, key=KEY) == str(tmp_path / "elsewhere" / "base")


def test_an_absolute_path_stays(records: Path) -> None:
    assert recorded_model("/nowhere/base", records, key=KEY) == "/nowhere/base"


def test_what_is_nowhere_is_named_with_all_that_was_tried(records: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=KEY) as caught:
        recorded_model("runs/tiny/gone", records, key=KEY)
    for folder in (tmp_path / "elsewhere", records.parent, tmp_path / "project"):
        assert f"{folder}, " in str(caught.value)


def journal(path: Path, header: dict[str, object]) -> None:
    path.write_text(json.dumps(header) + "\n" + json.dumps({"id": "done"}) + "\n")


def header(folder: str) -> dict[str, object]:
    return {
        "input": f"{folder}thoughts.jsonl",
        "model": [f"{folder}base", [["model.safetensors", 1, 2]]],
        "limit": None,
    }


def test_a_journal_with_relative_paths_is_resumed(records: Path) -> None:
    path = records.with_name("weighed.journal.jsonl")
    journal(path, header("runs/tiny/"))
    with RecordFile(path, header(f"{records.parent}/")) as resumed:
        assert resumed.done == {"done"}


def test_a_journal_of_another_model_is_refused(records: Path, tmp_path: Path) -> None:
    path = records.with_name("weighed.journal.jsonl")
    journal(path, header("runs/tiny/"))
    with pytest.raises(UserError, match=r"longshort\.input = .*remove it or choose another name"):
        RecordFile(path, header(f"{tmp_path}/other/"))
    with pytest.raises(UserError, match=r"longshort\.model"):
        RecordFile(path, {**header(f"{records.parent}/"), "model": [f"{records.parent}/base", []]})
