"""verl's FSDP training engines on a CPU: language model and value model.

verl 0.9.1 registers its engines for "cuda" and "npu" only. What these subclasses change is what needs an
accelerator or a package that needs one: pinned memory for a reference model, and flash attention for a
critic. Merged LoRA weights are sent as they are: verl rounds them to bfloat16, and engines on a CPU compute in float32.
Strategy "fsdp2" only, since torch's first FSDP rejects a CPU.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from longshort_reward.errors import UserError
from torch.distributed.tensor import DTensor
from transformers import AutoModelForTokenClassification, PretrainedConfig
from verl.utils.fsdp_utils import merged_lora_context, normalize_peft_param_name
from verl.utils.model import convert_weight_keys
from verl.workers.config import FSDPEngineConfig
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import (
    FSDPEngine,
    FSDPEngineWithLMHead,
    FSDPEngineWithValueHead,
)

STRATEGY = "fsdp2"
LANGUAGE_MODEL = "language_model"
VALUE_MODEL = "value_model"


class _OnCPU(FSDPEngine):
    """Keeps parameters where they are: there is no accelerator to offload them from."""

    engine_config: FSDPEngineConfig

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        # For a model that only runs forward, verl asks for an offload policy with pinned memory, and torch
        # pins memory only beside an accelerator.
        configured = self.engine_config
        self.engine_config = replace(configured, forward_only=False, offload_policy=False)
        try:
            return super()._build_fsdp_module(module)
        finally:
            self.engine_config = configured


@EngineRegistry.register(model_type=LANGUAGE_MODEL, backend=STRATEGY, device="cpu")
class CPULanguageModelEngine(_OnCPU, FSDPEngineWithLMHead):
    """Actor and reference policy."""

    def _merged_lora_per_tensor_param(self) -> Iterator[tuple[str, torch.Tensor]]:
        with merged_lora_context(self.module, backup_adapters=True):
            merged = normalize_peft_param_name(self.module.state_dict())
            for name, value in convert_weight_keys(merged, self.module).items():
                # a copy: these are the very weights that are put back in the end
                yield name, (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()


@EngineRegistry.register(model_type=VALUE_MODEL, backend=STRATEGY, device="cpu")
class CPUValueModelEngine(_OnCPU, FSDPEngineWithValueHead):
    """Critic."""

    def _build_module(self) -> torch.nn.Module:
        # verl's loader of value models insists on flash attention. Its loader of language models takes the
        # attention from the model's config and the class from `architectures`, and a token classifier with
        # one label is a value model.
        as_token_classifier(self.model_config.hf_config)
        self.model_config.model_type = LANGUAGE_MODEL
        try:
            return super()._build_module()
        finally:
            self.model_config.model_type = VALUE_MODEL


def as_token_classifier(config: PretrainedConfig) -> None:
    """Make `config` that of a token classifier with one label and no dropout (in place).

    Raises UserError when transformers has no token classifier for this architecture.
    """
    classifiers = AutoModelForTokenClassification._model_mapping
    if type(config) not in classifiers:
        remedy = (
            f"transformers has no token classifier for {type(config).__name__}, so it is no critic on a CPU; "
            "take another model, or an estimator without a critic (algorithm.adv_estimator=grpo)"
        )
        raise UserError("critic.model.path", config.name_or_path, remedy)
    config.architectures = [classifiers[type(config)].__name__]
    config.num_labels = 1
    for dropout in ("classifier_dropout", "hidden_dropout", "summary_dropout_prob"):
        setattr(config, dropout, 0.0)
