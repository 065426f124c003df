"""No model with missing weights is loaded, and what is loaded has the dtype that is stored."""

import json
import shutil
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from helpers.harness import write_model
from longshort_reward.errors import UserError
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from verl_longshort.base.files import check_model
from verl_longshort.base.model_files import stored_dtype
from verl_longshort.engines.factory import EngineSettings, open_engine
from verl_longshort.engines.loading import check_weights, load_model

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("whole"), layers=2)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "model")
    return tmp_path / "model"


def change_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / f"new-{WEIGHTS}", metadata={"format": "pt"})
    (folder / f"new-{WEIGHTS}").replace(folder / WEIGHTS)


def as_adapter(folder: Path) -> None:
    """What `save_pretrained` of a peft model writes."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(r=2, target_modules="all-linear"))
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder)


def as_unmerged(folder: Path) -> None:
    """What verl writes of a run with LoRA."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(r=2, target_modules="all-linear"))
    change_weights(folder, lambda _: {name: tensor.clone() for name, tensor in model.state_dict().items()})


def with_adapter_names(folder: Path) -> None:
    change_weights(
        folder,
        lambda old: {name.replace("q_proj.weight", "q_proj.base_layer.weight"): value for name, value in old.items()},
    )


def cut_off(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


BROKEN = {
    "adapter": (as_adapter, "is a LoRA adapter of .*: merge the adapter"),
    "unmerged": (as_unmerged, r"unmerged weights \(base_model\.model\..*: merge the adapter"),
    "adapter names": (with_adapter_names, r"lacks the weights .*q_proj\.weight.*; these are a LoRA run's: merge"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "cannot be loaded .*safetensors"),
    "cut off": (cut_off, f"{WEIGHTS} is cut off: copy the folder again"),
    "not safetensors": (lambda folder: (folder / WEIGHTS).write_text("no"), f"{WEIGHTS} is damaged"),
    "a layer too few": (
        lambda folder: change_config(folder, num_hidden_layers=3),
        r"lacks the weights model\.layers\.2",
    ),
    "a layer too many": (
        lambda folder: change_config(folder, num_hidden_layers=1),
        r"holds beyond what config\.json says model\.layers\.1",
    ),
    "shape": (
        lambda folder: change_config(folder, intermediate_size=32),
        r"holds in another shape than config\.json says model\.layers\.0\.mlp",
    ),
    "untied": (lambda folder: change_config(folder, tie_word_embeddings=False), r"lacks the weights lm_head\.weight;"),
    "unknown kind": (lambda folder: change_config(folder, model_type="nothing"), "cannot be loaded"),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
    "shard": (
        lambda folder: (folder / f"{WEIGHTS}.index.json").write_text(
            json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
        ),
        "lacks model-00001-of-00002.safetensors",
    ),
}


@pytest.mark.parametrize("way", [load_model, check_weights])
@pytest.mark.parametrize(("breaking", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_folder_is_named_in_one_line(
    folder: Path, breaking: Callable[[Path], None], message: str, way: Callable[..., object]
) -> None:
    breaking(folder)
    with pytest.raises(UserError, match=message) as caught:
        way(str(folder), key="longshort.models.long")
    assert str(caught.value).startswith(f"longshort.models.long = {folder}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["adapter", "unmerged", "cut off", "shard", "no config", "not safetensors"])
def test_what_the_files_show_is_refused_before_torch_is_imported(folder: Path, kind: str) -> None:
    breaking, message = BROKEN[kind]
    breaking(folder)
    with pytest.raises(UserError, match=message):
        check_model(str(folder), key="k")


def test_engines_load_no_broken_model(folder: Path) -> None:
    change_config(folder, num_hidden_layers=3)
    with ExitStack() as engines, pytest.raises(UserError, match="lacks the weights"):
        open_engine(str(folder), EngineSettings(engine="transformers"), max_num_seqs=1, seed=0, engines=engines)


def test_whole_models_load(folder: Path) -> None:
    # tied embeddings are stored once
    assert "lm_head.weight" not in load_file(folder / WEIGHTS)
    check_model(str(folder), key="k")
    check_weights(str(folder))
    # the head of another task is left out by right
    change_weights(folder, lambda old: {**old, "score.weight": torch.zeros(1, 32)})
    loaded, expected = load_model(str(folder)), AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(loaded.state_dict(), expected.state_dict())


def test_tied_embeddings_may_be_stored_twice(folder: Path) -> None:
    change_weights(folder, lambda old: {**old, "lm_head.weight": old["model.embed_tokens.weight"].clone()})
    check_weights(str(folder))
    load_model(str(folder))


def test_the_dtype_is_the_stored_one(folder: Path) -> None:
    change_config(folder, dtype="bfloat16")
    assert stored_dtype(folder) == "float32"
    assert load_model(str(folder)).dtype == torch.float32
    change_weights(folder, lambda old: {name: tensor.to(torch.bfloat16) for name, tensor in old.items()})
    change_config(folder, dtype="float32")
    assert load_model(str(folder)).dtype == torch.bfloat16
    assert load_model(str(folder), dtype=torch.float32).dtype == torch.float32


def test_a_header_longer_than_the_file_is_damage(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 10**9) + b"{}")
    with pytest.raises(UserError, match="is damaged"):
        check_model(str(folder), key="k")
