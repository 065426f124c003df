"""Tokenizers and models that an evaluation can or cannot use, found out before a model is loaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from longshort_reward.errors import UserError
from test_runner import data, evaluate, models, overrides, pair  # noqa: F401 (fixtures)

OWN = """
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
class OwnModel(LlamaForCausalLM): pass
class OwnTokenizer(PreTrainedTokenizerFast): pass
"""


def changed(source: Path, folder: Path, file: str, **entries: Any) -> Path:
    """A copy of a model with other entries in one of its files; None removes one."""
    if source != folder:
        shutil.copytree(source, folder)
    content = {**json.loads((folder / file).read_text()), **entries}
    (folder / file).write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    ("mode", "speaker", "key"),
    [("pair", "long", "longshort.models.long"), ("plain", "single", "longshort.models.single")],
)
def test_no_chat_template_is_one_line(
    mode: str,
    speaker: str,
    key: str,
    data: Path,  # noqa: F811
    models: dict[str, Path],  # noqa: F811
    tmp_path: Path,
) -> None:
    bare = changed(models["long"], tmp_path / "bare", "tokenizer_config.json", chat_template=None)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    given = {"long": bare, "short": models["short"]} if mode == "pair" else {speaker: bare}
    with pytest.raises(UserError, match="has no chat template") as error:
        evaluate(overrides("x", data, f"longshort.mode={mode}", **given))
    assert error.value.key == key
    assert not (data.parent / "x.jsonl").exists()


def test_models_with_code_of_their_own(
    data: Path,  # noqa: F811
    models: dict[str, Path],  # noqa: F811
    tmp_path: Path,
) -> None:
    own = changed(models["long"], tmp_path / "own", "config.json", auto_map={"AutoModelForCausalLM": "own.OwnModel"})
    tokenizer = {"auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}, "tokenizer_class": "OwnTokenizer"}
    changed(own, own, "tokenizer_config.json", **tokenizer)
    (own / "own.py").write_text(OWN)
    both = {**models, "long": own}
    with pytest.raises(UserError, match=r"set longshort\.trust_remote_code=true to run it"):
        evaluate(pair("x", data, both))
    summary = evaluate(pair("x", data, both, "longshort.trust_remote_code=true"))
    assert summary.stop_reasons == {"answered": 6}
