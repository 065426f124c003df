"""`longshort push` to a server that speaks the hub's interface, and what is fetched from there."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from helpers.exported import export, exported, write_adapter, write_run
from helpers.hub import TOKEN, Hub, hub_server
from longshort_reward.errors import UserError
from longshort_reward.protocol import Role
from rich.console import Console
from test_pair_export import GIVEN

from verl_longshort.base.errors import UnavailableError
from verl_longshort.base.pair_file import read_pair
from verl_longshort.base.stage import execute
from verl_longshort.stages.push import PushStage

NAME = "me/my-pair"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported pair that no test changes."""
    return exported(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub_server(monkeypatch) as running:
        yield running


def pushed(folder: Path, repository: str = NAME, **options: bool) -> str:
    """What the command says."""
    said = io.StringIO()
    given = {"private": False, "replace": False, "dry_run": False, **options}
    execute(PushStage(), Console(file=said, width=120), folder=folder, repository=repository, **given)
    assert TOKEN not in said.getvalue()
    return said.getvalue()


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_pair_is_one_commit_of_one_repository_and_comes_back(shared: Path, hub: Hub) -> None:
    said = pushed(shared, private=True)
    repository = hub.repositories[NAME]
    assert repository.private
    assert {name: content for name, content in repository.files.items() if name != ".gitattributes"} == files_of(shared)
    assert [one.title for one in repository.commits] == ["initial commit", "longshort push: my-pair"]
    assert f"{hub.url}/{NAME}/commit/{repository.commits[-1].id}" in said
    for name in (NAME, f"{NAME}@{repository.commits[-1].id}"):
        fetched = read_pair(name)
        assert fetched.record == read_pair(shared).record
        assert (fetched.folder / "long/model.safetensors").read_bytes() == repository.files["long/model.safetensors"]
    with pytest.raises(UserError, match=r"longshort\.pair = me/nothing: is no pair that the Hub gives \(.*404"):
        read_pair("me/nothing")


def test_a_later_push_replaces_the_earlier_one_and_sends_weights_once(shared: Path, hub: Hub, tmp_path: Path) -> None:
    pushed(shared)
    changed = Path(shutil.copytree(shared, tmp_path / "changed"))
    (changed / "README.md").write_text((changed / "README.md").read_text() + "\nMore.\n")
    (changed / "long/tokenizer_config.json").rename(changed / "long/other.json")
    hub.asked.clear()
    pushed(changed)
    files = hub.repositories[NAME].files
    assert files["README.md"].endswith(b"\nMore.\n")
    assert "long/tokenizer_config.json" not in files
    assert "long/other.json" in files
    assert not [asked for asked in hub.asked if asked.startswith("PUT")]


def test_other_content_is_not_overwritten(shared: Path, hub: Hub) -> None:
    hub.commit(NAME, "Upload model", **{"README.md": b"mine", "model.safetensors": b"x"})
    with pytest.raises(UserError, match=r"REPOSITORY = .*holds other files \(README.md, model.safetensors\)"):
        pushed(shared)
    assert hub.repositories[NAME].files == {"README.md": b"mine", "model.safetensors": b"x"}
    pushed(shared, replace=True)
    assert hub.repositories[NAME].files == files_of(shared)
    hub.commit(NAME, "Update README.md", **{"README.md": b"mine again"})
    with pytest.raises(UserError, match=r"was changed since its last push \('Update README.md'\)"):
        pushed(shared)
    assert hub.repositories[NAME].files["README.md"] == b"mine again"


def test_without_a_token_nothing_is_sent(shared: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nothing was sent\n" in pushed(shared, dry_run=True)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    said = pushed(shared)
    assert "nothing was sent: there is no token" in said
    for name in ("pair.json", "long/model.safetensors", "short/generation_config.json"):
        assert name in said
    assert hub.asked == []


def test_the_hub_refuses(shared: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError, match=r"others/pair was not pushed: .*403"):
        pushed(shared, "others/pair")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(UnavailableError, match=r"was not pushed: .*401") as error:
        pushed(shared)
    assert "hf_another" not in str(error.value)
    for name, message in (("pair", "give owner/name"), ("me/..", "give owner/name")):
        with pytest.raises(UserError, match=message):
            pushed(shared, name)


def test_without_a_network_nothing_is_pushed(shared: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise httpx.ConnectError("[Errno 111] Connection refused")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", broken)
    with pytest.raises(UnavailableError, match=r"me/my-pair was not pushed: .*Connection refused; check the network"):
        pushed(shared)


BROKEN = {
    "network": httpx.ReadError("the connection broke off"),
    "disk": OSError(28, "No space left on device"),
    "gated": ValueError("Access to model me/base is restricted"),
}


@pytest.mark.parametrize("error", BROKEN.values(), ids=BROKEN)
def test_a_model_that_cannot_be_fetched_is_one_line(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    hub.commit("me/base", "the base", **{"config.json": b"{}"})
    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    models = [f"longshort.models.{role}=me/base" for role in Role]
    message = r"longshort\.models\.long = me/base: is no model that the Hub gives \(.*\): give a folder, or check"
    with pytest.raises(UserError, match=message):
        export(*models, *GIVEN, f"longshort.output_dir={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_weights_that_changed_since_the_export_are_not_sent(shared: Path, hub: Hub, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(shared, tmp_path / "changed"))
    weights = changed / "short/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"short/model\.safetensors is not what pair\.json names any more"):
        pushed(changed)
    assert hub.asked == []


def test_an_adapters_base_is_named_without_its_folder(hub: Hub, tmp_path: Path) -> None:
    write_run(tmp_path)
    adapter = write_adapter(tmp_path / "start/long", tmp_path / "adapter")
    models = [f"longshort.models.long={adapter}", f"longshort.models.short={tmp_path / 'start/short'}"]
    export(*models, *GIVEN, f"longshort.output_dir={tmp_path / 'out'}")
    pushed(tmp_path / "out")
    files = hub.repositories[NAME].files
    assert json.loads(files["adapters/long/adapter_config.json"])["base_model_name_or_path"] == "long"
    assert "adapters/long/adapter_model.safetensors" in files
    assert not [name for name, content in files.items() if str(tmp_path).encode() in content]
    assert {name.partition("/")[0] for name in files} >= {*Role, "adapters", "pair.json", "README.md"}
