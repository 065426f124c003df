"""Finishes the Hugging Face folders that verl's checkpoints hold, so that each is a model of its own.

What verl leaves: weights in the trainer's dtype beside a `config.json` that says bfloat16; with LoRA, the unmerged
weights under peft's names; and a generation config that does not know where a turn ends. `finish_export` makes of it

* with LoRA, the adapter beside it (`adapter`), as peft, vLLM and this package load it;
* whole weights, adapters merged, in the dtype of the model that the training began with, which `config.json` names;
* `generation_config.json` with the closing tags of its role, or of both, as `stop_strings`;
* `longshort_policy.json` with role and system prompts (`base/policy_record.py`).
"""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from longshort_reward.protocol import RolePrompts
from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from verl_longshort.base.files import absolute_model, write_json
from verl_longshort.base.model_files import DTYPES, LORA_PREFIX, stored_dtype, weight_headers
from verl_longshort.base.policy_record import POLICY_FILE, policy_record
from verl_longshort.engines.loading import check_weights, load_model
from verl_longshort.engines.turn_ends import stop_at_turns

if TYPE_CHECKING:
    # it takes a while, and most runs have no adapters
    from peft import PeftModel

ADAPTER = "adapter"
"""The folder of a checkpoint, beside `huggingface`, that holds the adapter of a LoRA run."""


def finish_export(
    folder: Path,
    model: DictConfig,
    *,
    role: str | None,
    prompts: RolePrompts | None = None,
    adapter: Path | None = None,
) -> None:
    """Finish the folder `huggingface` of a checkpoint; does nothing where no weights were saved.

    Args:
        folder: as verl wrote it.
        model: verl's model configuration of the run.
        role: long, short, or both for a policy that plays both; None for a model that writes whole answers alone.
        prompts: the system prompts that it was trained with.
        adapter: where the adapter of a LoRA run goes, with the files of `folder` that are not weights.

    Raises:
        UserError: the weights are not all there.
    """
    names = weight_headers(folder)
    if not names:
        return
    trust = bool(model.trust_remote_code)
    dtype = _dtype(str(model.path), trust_remote_code=trust) or stored_dtype(folder)
    adapted = any(name.startswith(LORA_PREFIX) for name in names)
    if adapted:
        wrapped = _unmerged(folder, model)
        if adapter is not None:
            _write_adapter(wrapped, adapter, base=absolute_model(str(model.path)))
        whole = wrapped.merge_and_unload()
        _replace_weights(folder, whole.to(getattr(torch, dtype)) if dtype else whole)
    elif dtype is not None and dtype != stored_dtype(folder):
        _replace_weights(folder, load_model(str(folder), dtype=getattr(torch, dtype), trust_remote_code=trust))
    if dtype is not None:
        config = json.loads((folder / "config.json").read_text())
        config.pop("torch_dtype", None)
        write_json(folder / "config.json", {**config, "dtype": dtype})
    check_weights(str(folder), trust_remote_code=trust)
    if role is not None:
        assert prompts is not None, "a role has prompts"
        stop_at_turns(folder, role, trust_remote_code=trust)
        write_json(folder / POLICY_FILE, policy_record(role, prompts, base=str(model.path)))
    if adapted and adapter is not None:
        for file in folder.iterdir():
            if ".safetensors" not in file.name:
                shutil.copy2(file, adapter / file.name)


def _dtype(base: str, *, trust_remote_code: bool) -> str | None:
    """The dtype of the model that the training began with; None when it is none that a model is trained in."""
    folder = Path(base).expanduser()
    if folder.is_dir():
        return stored_dtype(folder)
    named = str(AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code).dtype).removeprefix("torch.")
    return named if named in DTYPES.values() else None


def _unmerged(folder: Path, model: DictConfig) -> "PeftModel":
    """The model with its adapter beside the weights, from the weights of a peft model in `folder`."""
    from peft import LoraConfig, PeftConfig, TaskType, get_peft_model
    from safetensors.torch import load_file

    config = AutoConfig.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    if model.lora_adapter_path is not None:
        adapter = PeftConfig.from_pretrained(str(Path(model.lora_adapter_path).expanduser()))
    else:
        given: Any = OmegaConf.to_container(model, resolve=True)
        same = ("target_modules", "target_parameters", "exclude_modules")
        adapter = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=given["lora_rank"],
            lora_alpha=given["lora_alpha"],
            bias="none",
            **{name: given.get(name) for name in same},
        )
    weights = {
        name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()
    }
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(config, trust_remote_code=model.trust_remote_code)
        wrapped = get_peft_model(whole, adapter)
    wrapped.load_state_dict(weights, strict=False, assign=True)
    wrapped.get_base_model().tie_weights()
    absent = [name for name, parameter in wrapped.named_parameters() if parameter.is_meta]
    if absent:
        raise RuntimeError(f"{folder} lacks weights of the LoRA run, such as {absent[0]}: the checkpoint is incomplete")
    return wrapped


def _write_adapter(model: "PeftModel", folder: Path, *, base: str) -> None:
    """Write the adapter alone, which belongs to `base`, in the trainer's dtype."""
    model.peft_config["default"].base_model_name_or_path = base
    # peft would ask the hub whether the vocabulary is that of the base
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)


def _replace_weights(folder: Path, model: PreTrainedModel) -> None:
    """Write the weights of `model` in place of the folder's; by a detour, since it may still map the old files."""
    aside = folder.with_name(f"{folder.name}.weights")
    shutil.rmtree(aside, ignore_errors=True)
    # only the weights are kept of what this writes
    model.generation_config = GenerationConfig()
    model.save_pretrained(aside)
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    for new in aside.glob("*.safetensors*"):
        os.replace(new, folder / new.name)
    shutil.rmtree(aside)
