"""Loads causal language models, and no model with weights that its folder does not hold.

transformers fills in what is missing at random and goes on; `load_model` raises instead. `check_weights` asks the same
without reading the weights.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from textwrap import shorten
from typing import Any

import torch
from longshort_reward.errors import UserError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.utils import logging

from verl_longshort.base.model_files import (
    LORA_PREFIX,
    MERGE,
    adapter_base,
    check_files,
    stored_dtype,
    weight_headers,
)

_SHOWN = 3  # weights that a message names
_REASON = 300  # characters of an error of transformers
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, UnpicklingError)
_PICKLED = "its weights are a pickle of more than tensors, which could run code when it is read: take .safetensors"


def load_model(path: str, *, key: str = "model", dtype: torch.dtype | None = None, **options: Any) -> PreTrainedModel:
    """The model in a folder or on the hub, whole.

    Args:
        path: a Hugging Face folder or name.
        key: names the setting in messages.
        dtype: None: the one that the weights are stored in, whatever `config.json` says.
        options: further arguments of `from_pretrained`. Without `trust_remote_code` no code of the model's own is run,
            and nobody is asked whether it should be.

    An adapter of peft is merged into its base.

    Raises UserError for a folder without a model, weights that the folder lacks or that have another shape, and weights
    that the model has no place for though they are a part of it.
    """
    options = {"trust_remote_code": False, **options}
    folder = Path(path).expanduser()
    if folder.is_dir():
        check_files(folder, key=key, given=path, adapters=True)
        if (base := adapter_base(folder)) is not None:
            return _merged(folder, base, key=key, dtype=dtype, **options)
    stored = stored_dtype(folder) if dtype is None and folder.is_dir() else None
    chosen = dtype or (getattr(torch, stored) if stored else "auto")
    with _quiet():
        try:
            # with shapes ignored, those that differ are told by name
            model, found = AutoModelForCausalLM.from_pretrained(
                str(folder) if folder.is_dir() else path,
                dtype=chosen,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
        except _UNREADABLE as error:
            raise UserError(key, path, f"cannot be loaded as a causal language model: {_reason(error)}") from error
    mismatched = sorted(entry if isinstance(entry, str) else entry[0] for entry in found["mismatched_keys"])
    _check(path, key, model, sorted(found["missing_keys"]), sorted(found["unexpected_keys"]), mismatched)
    return model


def _reason(error: Exception) -> str:
    """One line of an error of the libraries; torch's own words about a pickle advise to run it."""
    return _PICKLED if isinstance(error, UnpicklingError) else shorten(str(error), _REASON) or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers says nothing of what it loads."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _merged(folder: Path, base: str, *, key: str, dtype: torch.dtype | None, **options: Any) -> PreTrainedModel:
    """The adapter in `folder` merged into its base: in float32, as a checkpoint's export is, and rounded then."""
    from peft import PeftModel, get_peft_model_state_dict

    # the first that asks for a base on the Hub: it says what is wrong with it
    whole = load_model(base, key=key, dtype=torch.float32, **options)
    if (chosen := dtype) is None:
        stored = stored_dtype(Path(base))
        code = options.get("trust_remote_code", False)
        named = None if stored else AutoConfig.from_pretrained(base, trust_remote_code=code).dtype
        chosen = getattr(torch, stored) if stored else named or torch.float32
    names = set(weight_headers(folder))
    try:
        wrapped = PeftModel.from_pretrained(whole, str(folder))
    except _UNREADABLE as error:
        raise UserError(key, str(folder), f"cannot be loaded as an adapter of {base}: {_reason(error)}") from error
    own = set(get_peft_model_state_dict(wrapped))
    if own != names:
        what = f"lacks the weights {_listed(sorted(own - names))}" if own - names else "is of another model than"
        raise UserError(key, str(folder), f"{what} {base}: copy the folder again, or give another one")
    merged = wrapped.merge_and_unload().to(chosen)
    if (folder / "generation_config.json").is_file():
        merged.generation_config = GenerationConfig.from_pretrained(folder)
    return merged


def check_weights(path: str, *, key: str = "model", **options: Any) -> None:
    """Raise UserError where `load_model` would; of folders only, and if possible without reading the weights."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return
    if adapter_base(folder) is not None:
        load_model(path, key=key, **options)
        return
    try:
        load_model(path, key=key, device_map="meta", **options)
    except UserError as error:
        # tied embeddings that are stored twice are compared, which takes their values
        if not isinstance(error.__cause__, NotImplementedError):
            raise
        load_model(path, key=key, **options)


def largest_weight(path: str, *, key: str = "model", trust_remote_code: bool = False) -> tuple[str, int]:
    """Name and number of values of a model's largest weight, from its configuration.

    Raises UserError for a folder or name, given as `key`, whose configuration is none of a causal language model.
    """
    try:
        config = AutoConfig.from_pretrained(str(Path(path).expanduser()), trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        reason = shorten(str(error), _REASON) or type(error).__name__
        raise UserError(key, path, f"its configuration cannot be read: {reason}") from error
    return max(((name, weight.numel()) for name, weight in model.state_dict().items()), key=lambda found: found[1])


def _check(
    path: str, key: str, model: PreTrainedModel, missing: list[str], unexpected: list[str], mismatched: list[str]
) -> None:
    own = {_kind(name) for name in model.state_dict()}
    # heads of another task, or of predicting several tokens, are left out by right; a layer too many is not
    foreign = [name for name in unexpected if _kind(name) in own or _is_adapter(name)]
    problems = {
        "lacks the weights": missing,
        "holds in another shape than config.json says": mismatched,
        "holds beyond what config.json says": foreign,
    }
    told = [f"{what} {_listed(names)}" for what, names in problems.items() if names]
    if told:
        adapter = any(map(_is_adapter, unexpected))
        remedy = f"these are a LoRA run's: {MERGE}" if adapter else "copy the folder again, or give another model"
        raise UserError(key, path, f"{' and '.join(told)}; {remedy}")


def _is_adapter(name: str) -> bool:
    return name.startswith(LORA_PREFIX) or "lora_" in name or ".base_layer." in name


def _kind(name: str) -> str:
    return re.sub(r"\d+", "N", name)


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
