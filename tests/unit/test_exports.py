"""Exported folders: whole weights in the dtype that is said, and what ends a turn."""

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.harness import write_model
from helpers.tiny_tokenizers import byte_level
from helpers.word_models import FOLLOWING, save_model
from longshort_reward.errors import UserError
from longshort_reward.protocol import Role, RolePrompts
from omegaconf import DictConfig
from peft import LoraConfig, PeftModel, get_peft_model
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from verl_longshort.base.model_files import stored_dtype
from verl_longshort.base.policy_record import prompt_warnings
from verl_longshort.config.pair import Pools
from verl_longshort.core.policies import players
from verl_longshort.core.schedule import Schedule
from verl_longshort.engines.loading import load_model
from verl_longshort.engines.stopping import end_tokens
from verl_longshort.stages import eval as eval_stage
from verl_longshort.verl_plugin import launch
from verl_longshort.verl_plugin.trainer.exports import finish_export

PROMPTS = RolePrompts(long="think", short="answer")
WEIGHTS = "model.safetensors"


def model_config(base: Path, **lora: object) -> DictConfig:
    """The keys of verl's model configuration that matter here."""
    none = {"lora_rank": 0, "lora_alpha": 16, "lora_adapter_path": None}
    modules = {"target_modules": "all-linear", "target_parameters": None, "exclude_modules": None}
    return DictConfig({"path": str(base), "trust_remote_code": False, **none, **modules, **lora})


def exported(base: Path, folder: Path, *, dtype: str) -> Path:
    """A folder as verl leaves it: the weights in `dtype` beside a config that says bfloat16."""
    shutil.copytree(base, folder)
    weights = {name: tensor.to(getattr(torch, dtype)) for name, tensor in load_file(base / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    return folder


@pytest.mark.parametrize("base_dtype", ["float32", "bfloat16"])
def test_weights_and_config_have_the_dtype_of_the_base(tmp_path: Path, base_dtype: str) -> None:
    base = write_model(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(base).to(getattr(torch, base_dtype)).save_pretrained(base)
    trained = write_model(tmp_path / "trained", seed=1)
    folder = exported(trained, tmp_path / "out", dtype="float32")
    finish_export(folder, model_config(base), role=Role.LONG, prompts=PROMPTS)
    assert stored_dtype(folder) == base_dtype
    assert json.loads((folder / "config.json").read_text())["dtype"] == base_dtype
    expected = AutoModelForCausalLM.from_pretrained(trained).to(getattr(torch, base_dtype)).state_dict()
    torch.testing.assert_close(AutoModelForCausalLM.from_pretrained(folder).state_dict(), expected, rtol=0, atol=0)
    assert not list(tmp_path.glob("*.weights"))


@pytest.mark.parametrize("tied", [True, False])
def test_lora_is_merged(tmp_path: Path, tied: bool) -> None:
    base = write_model(tmp_path / "base") if tied else save_model(tmp_path / "base", FOLLOWING["long"])
    torch.manual_seed(1)
    lora = LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model: PreTrainedModel = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    folder = exported(base, tmp_path / "out", dtype="float32")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    adapter = tmp_path / "adapter"
    given = model_config(base, lora_rank=2, lora_alpha=8)
    finish_export(folder, given, role=Role.SHORT, prompts=PROMPTS, adapter=adapter)
    ids = torch.arange(1, 12)[None]
    with torch.no_grad():
        expected, before = model(ids).logits, AutoModelForCausalLM.from_pretrained(base)(ids).logits
        torch.testing.assert_close(load_model(str(folder))(ids).logits, expected, rtol=1e-4, atol=1e-4)
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
        torch.testing.assert_close(plain(ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, before, atol=0.1)
    assert_same(load_model(str(adapter)), load_model(str(folder)))
    assert json.loads((adapter / "longshort_policy.json").read_text())["role"] == "short"
    assert load_model(str(adapter)).generation_config.to_dict() == load_model(str(folder)).generation_config.to_dict()
    assert load_file(adapter / "adapter_model.safetensors").keys().isdisjoint(load_file(base / WEIGHTS))


def assert_same(one: PreTrainedModel, other: PreTrainedModel) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def an_adapter(base: Path, folder: Path) -> Path:
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora).save_pretrained(folder)
    return folder


def test_an_adapter_without_some_of_its_weights_or_its_base_is_refused(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    adapter = an_adapter(base, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    del weights[name]
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"lacks the weights {name}"):
        load_model(str(adapter))
    shutil.rmtree(base)
    with pytest.raises(UserError, match=r"is a LoRA adapter of .*/base, which is not there"):
        load_model(str(adapter))


def test_an_export_with_missing_weights_is_refused(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    folder = exported(base, tmp_path / "out", dtype="float32")
    weights = load_file(folder / WEIGHTS)
    del weights["model.norm.weight"]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks the weights model\.norm\.weight"):
        finish_export(folder, model_config(base), role=Role.LONG, prompts=PROMPTS)


def test_a_checkpoint_without_weights_is_left_alone(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    folder = exported(base, tmp_path / "out", dtype="float32")
    (folder / WEIGHTS).unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    finish_export(folder, model_config(base), role=Role.LONG, prompts=PROMPTS)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def continued(folder: Path, text: str, **options: object) -> str:
    """What plain transformers writes after `text`."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    made = model.generate(ids, max_new_tokens=12, do_sample=False, tokenizer=tokenizer, **options)
    return tokenizer.decode(made[0, ids.shape[1] :])


@pytest.mark.parametrize(
    ("role", "speaker", "before", "turn"),
    [
        (Role.LONG, "long", "?", "<think> so </think>"),
        (Role.SHORT, "short", "</think>", "<answer> \\boxed{ 4 } </answer>"),
        (Role.SHORT, "asking", "</think>", "<answer> </rethink>"),
    ],
)
def test_plain_transformers_ends_a_turn_where_it_ends(
    tmp_path: Path, role: Role, speaker: str, before: str, turn: str
) -> None:
    """Each of these models would go on after its closing tag."""
    base = save_model(tmp_path / "base", {turn.split()[-1]: "so", **FOLLOWING[speaker]})
    assert continued(base, before) != turn
    folder = exported(base, tmp_path / "out", dtype="float32")
    finish_export(folder, model_config(base), role=role, prompts=PROMPTS)
    assert continued(folder, before) == turn
    # a policy asked alone goes on after its first thought: the package's engines do not take the tag for an end
    tokenizer, config = AutoTokenizer.from_pretrained(folder), load_model(str(folder)).generation_config
    assert end_tokens(tokenizer, config.eos_token_id) == [tokenizer.eos_token_id]


def test_tags_of_several_tokens_are_stop_strings(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    folder = exported(base, tmp_path / "out", dtype="float32")
    byte_level().save_pretrained(folder)
    known = {"eos_token_id": [1, 2], "temperature": 0.6, "do_sample": True, "_from_model_config": True}
    (folder / "generation_config.json").write_text(json.dumps(known))
    finish_export(folder, model_config(base), role=Role.SHORT, prompts=PROMPTS)
    written = json.loads((folder / "generation_config.json").read_text())
    del known["_from_model_config"]
    assert written == {**known, "stop_strings": ["</answer>", "</rethink>"]}


@pytest.fixture
def pair(tmp_path: Path) -> dict[Role, str]:
    """Exported policies that were trained with `PROMPTS`."""
    base = write_model(tmp_path / "base")
    for role in Role:
        folder = exported(base, tmp_path / role, dtype="float32")
        finish_export(folder, model_config(base), role=role, prompts=PROMPTS)
    return {role: str(tmp_path / role) for role in Role}


def test_other_prompts_than_trained_with_are_noticed(tmp_path: Path, pair: dict[Role, str]) -> None:
    assert prompt_warnings(pair, PROMPTS) == []
    assert prompt_warnings({role: str(tmp_path / "base") for role in Role}, RolePrompts(long="", short="")) == []
    (line,) = prompt_warnings(pair, RolePrompts(long="think", short="other"))
    assert line.startswith(f"{pair[Role.SHORT]} was trained with another system prompt: set ")
    assert "longshort.environment.prompts.short" in line
    swapped = prompt_warnings({Role.LONG: pair[Role.SHORT], Role.SHORT: pair[Role.SHORT]}, PROMPTS)
    assert swapped == [f"{pair[Role.SHORT]} was trained for the short role and is used for the long role"]
    (Path(pair[Role.SHORT]) / "longshort_policy.json").write_text("[]")
    (line,) = prompt_warnings(pair, PROMPTS)
    assert "longshort_policy.json cannot be read" in line


def test_eval_says_so(tmp_path: Path, pair: dict[Role, str], monkeypatch: pytest.MonkeyPatch) -> None:
    summary = SimpleNamespace(
        name="a", accuracy=SimpleNamespace(value=0.5), tokens=SimpleNamespace(value=9.0), problems=1, stop_reasons={}
    )
    monkeypatch.setattr(eval_stage, "evaluate", lambda settings: summary)
    stage, said = eval_stage.EvalStage(), io.StringIO()
    overrides = ["longshort.name=a", f"longshort.output_dir={tmp_path}", "longshort.environment.prompts.long=other"]
    models = [f"longshort.models.{role}={path}" for role, path in pair.items()]
    settings = stage.settings(overrides=[*overrides, *models, "longshort.environment.prompts.short=answer"])
    stage.run(settings, None, Console(file=said))
    (line,) = [line for line in said.getvalue().splitlines() if line.startswith("warning: ")]
    assert line.startswith(f"warning: {pair[Role.LONG]} was trained with another system prompt")


def test_train_says_so_and_refuses_missing_weights(
    pair: dict[Role, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[object] = []
    monkeypatch.setattr(launch, "run_verl", lambda config, **_: started.append(config))
    prompts = RolePrompts(long="other", short="answer")
    settings = SimpleNamespace(
        prompts=prompts, pools=Pools.SHARED, schedule=Schedule.parse(["both"], 1), players=players(tied=False)
    )
    monkeypatch.setattr(launch, "settings_of", lambda _: settings)
    rollout = {"name": "transformers"}
    models = {role: model_config(Path(pair[role])) for role in Role}
    policies = {role.value: {"actor_rollout_ref": {"model": models[role], "rollout": rollout}} for role in Role}
    config = DictConfig({"longshort": {"policy_configs": policies}, "trainer": {"default_local_dir": "nowhere"}})
    launch.train(config, [])
    assert f"warning: {pair[Role.LONG]} was trained with another" in capsys.readouterr().out
    assert started == [config]
    changed = Path(pair[Role.SHORT]) / "config.json"
    changed.write_text(json.dumps({**json.loads(changed.read_text()), "num_hidden_layers": 2}))
    with pytest.raises(UserError, match=r"policies\.short\.actor_rollout_ref\.model\.path = .* lacks the weights"):
        launch.train(config, [])
    assert started == [config]
