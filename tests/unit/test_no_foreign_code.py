"""No code from data or models: a test that reads the sources for what could run some, and ones that try it.

What is tried would leave a file, the marker.
"""

import ast
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.word_models import FOLLOWING, save_model
from longshort_reward.errors import UserError
from peft import LoraConfig, get_peft_model

from verl_longshort.engines.loading import load_model
from verl_longshort.engines.tokenizers import check_chat, load_tokenizer

ROOT = Path(__file__).parents[2]
FOLDERS = ("verl_longshort", "reward", "recipes")
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "pickle.load", "pickle.loads"}
ALLOWED = {
    ("verl_longshort/engines/loading.py", "import pickle"): "only its error, for weights that are refused",
    ("verl_longshort/engines/vllm.py", "trust_remote_code=True"): "only where the setting trust_remote_code is true",
}


def dangers(source: str) -> Iterator[str]:
    """What in a Python source could run code that is not its own."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"import {name.name}" for name in node.names if name.name.split(".")[0] in PICKLES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLES:
            yield f"import {node.module}"
        elif isinstance(node, ast.Dict):
            pairs = [(key, value) for key, value in zip(node.keys, node.values, strict=True) if key is not None]
            if any(
                _is(key, "trust_remote_code") and not _is(value, False) and _is_constant(value) for key, value in pairs
            ):
                yield "trust_remote_code=True"
        elif isinstance(node, ast.Call):
            yield from _dangers_of_call(node)


def _dangers_of_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    if name in CALLS:
        yield name
    for key in ("trust_remote_code", "shell", "allow_pickle"):
        if key in given and _is_constant(given[key]) and not _is(given[key], False):
            yield f"{key}=True"
    if name == "torch.load" and not ("weights_only" in given and _is(given["weights_only"], True)):
        yield "torch.load without weights_only=True"


def _is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant)


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def test_no_source_runs_foreign_code() -> None:
    found = {
        (str(file.relative_to(ROOT)), danger)
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("*.py")
        for danger in dangers(file.read_text(encoding="utf-8"))
    }
    assert found == set(ALLOWED)


def test_no_recipe_or_configuration_trusts_a_models_code() -> None:
    files = [file for folder in FOLDERS for kind in ("*.yaml", "*.sh") for file in (ROOT / folder).rglob(kind)]
    assert len(files) > 20
    for file in files:
        text = file.read_text(encoding="utf-8").lower().replace(" ", "")
        assert "trust_remote_code:true" not in text, file
        assert "trust_remote_code=true" not in text, file


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        ("AutoModel.from_pretrained(p, trust_remote_code=True)", "trust_remote_code=True"),
        ("options = {'trust_remote_code': True}", "trust_remote_code=True"),
        ("import pickle", "import pickle"),
        ("from dill import loads", "import dill"),
        ("eval(text)", "eval"),
        ("exec(text)", "exec"),
        ("torch.load(f)", "torch.load without weights_only=True"),
        ("torch.load(f, weights_only=False)", "torch.load without weights_only=True"),
        ("yaml.load(f, Loader)", "yaml.load"),
        ("subprocess.run(c, shell=True)", "shell=True"),
        ("np.load(f, allow_pickle=True)", "allow_pickle=True"),
        ("os.system(c)", "os.system"),
    ],
)
def test_what_is_looked_for_is_found(source: str, danger: str) -> None:
    assert list(dangers(source)) == [danger]


def test_what_is_harmless_is_not() -> None:
    harmless = (
        "model.eval()\nf(trust_remote_code=own)\ntorch.load(f, weights_only=True)\nyaml.safe_load(f)\nf(shell=False)"
    )
    assert list(dangers(harmless)) == []


# ---- tried ---------------------------------------------------------------------------------------------


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """The file that foreign code would write; it must not be there at the end."""
    file = tmp_path / "marker"
    yield file
    assert not file.exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("whole") / "model", FOLLOWING["long"])


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "model")


def change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


class Own:
    """Unpickled, it writes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_the_pickle_would_write_the_marker(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Own(tmp_path / "there")))
    assert (tmp_path / "there").exists()


@pytest.mark.parametrize("kind", ["llama", "own"])
def test_a_models_own_code_is_not_run(model: Path, marker: Path, kind: str) -> None:
    code = f"open({str(marker)!r}, 'w').close()\nfrom transformers import *\nclass Own(LlamaForCausalLM): pass\n"
    (model / "own.py").write_text(code)
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    change(model / "config.json", auto_map=own, model_type=kind, architectures=["Own"])
    change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", "own.Own"]}, tokenizer_class="Own")
    for load in (lambda: load_model(str(model)), lambda: load_tokenizer(str(model), key="model")):
        with suppress(UserError):
            load()


def test_pickled_weights_are_not_unpickled(model: Path, marker: Path) -> None:
    (model / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Own(marker)}, model / "pytorch_model.bin")
    with pytest.raises(UserError, match="a pickle of more than tensors"):
        load_model(str(model))


def test_a_pickled_adapter_is_not_unpickled(whole: Path, tmp_path: Path, marker: Path) -> None:
    adapter = tmp_path / "adapter"
    lora = LoraConfig(r=2, target_modules=["q_proj"], base_model_name_or_path=str(whole))
    get_peft_model(load_model(str(whole)), lora).save_pretrained(adapter)
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": Own(marker)}, adapter / "adapter_model.bin"
    )
    with pytest.raises(UserError, match="a pickle of more than tensors"):
        load_model(str(adapter))


INJECTIONS = (
    "{{{{ lipsum.__globals__['os'].mkdir('{marker}') }}}}",
    "{{{{ cycler.__init__.__globals__.os.mkdir('{marker}') }}}}",
    "{{{{ ''.__class__.__mro__[1].__subclasses__() }}}}{{{{ ''.__init__.__globals__ }}}}",
    "{{% for c in ''.__class__.__base__.__subclasses__() %}}{{% if c.__name__ == 'Popen' %}}"
    "{{{{ c(['mkdir', '{marker}']) }}}}{{% endif %}}{{% endfor %}}",
)


@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_chat_template_runs_in_a_sandbox(model: Path, marker: Path, injection: str) -> None:
    tokenizer = load_tokenizer(str(model), key="model")
    tokenizer.chat_template = injection.format(marker=marker) + tokenizer.chat_template
    with pytest.raises(UserError):
        check_chat(tokenizer, str(model), key="model", system="s", prompt_key="prompt")


@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_problem_is_no_template(model: Path, marker: Path, injection: str) -> None:
    text = injection.format(marker=marker)
    tokenizer = load_tokenizer(str(model), key="model")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    chat = [{"role": "user", "content": text}]
    assert tokenizer.apply_chat_template(chat, tokenize=False).strip() == text
