"""Engines in this process: vLLM or transformers, behind one interface.

`longshort eval`, `longshort weigh` and the in-process language model of the data stages get their models
here. The keys are documented in `config/in_process/default.yaml`.
"""

import importlib.util
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

from longshort_reward.compat import StrEnum
from longshort_reward.errors import UserError

from verl_longshort.base.dry_run import dry_run
from verl_longshort.core.trajectory import Generation

if TYPE_CHECKING:
    from verl_longshort.engines.transformers_engine import TransformersEngine
    from verl_longshort.engines.vllm_engine import VllmEngine

KEYS = ("engine", "tensor_parallel_size", "gpu_memory_utilization")
"""Keys of `EngineSettings` in a command's block."""

MEMORY_SHARE = 0.9
"""Of a GPU, for all engines of a command together, where the settings do not say."""


class EngineName(StrEnum):
    """Which library generates."""

    AUTO = "auto"
    TRANSFORMERS = "transformers"
    VLLM = "vllm"


class Engine(Protocol):
    """What commands use of an engine."""

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer at most."""
        ...

    async def generate(self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        """See `trajectory.Generate`."""
        ...


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """The engine of a command, checked, with `auto` settled."""

    engine: EngineName
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float | None = None

    @classmethod
    def parse(cls, block: Mapping[str, Any], *, where: str) -> "EngineSettings":
        """Check the `KEYS` of a block of plain containers that stands at `where`.

        Raises UserError naming the key that cannot be used.
        """
        size, memory = block["tensor_parallel_size"], block["gpu_memory_utilization"]
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UserError(f"{where}.tensor_parallel_size", size, "must be a number of GPUs, 1 or more")
        if memory is not None and not _is_share(memory):
            remedy = "must be a share above 0 and up to 1, or null"
            raise UserError(f"{where}.gpu_memory_utilization", memory, remedy)
        engine = _chosen(block["engine"], f"{where}.engine")
        if size > 1 and engine is not EngineName.VLLM:
            remedy = "only vLLM spreads a model over several GPUs: set 1, or engine to vllm"
            raise UserError(f"{where}.tensor_parallel_size", size, remedy)
        return cls(engine=engine, tensor_parallel_size=size, gpu_memory_utilization=memory)

    def header(self) -> dict[str, str]:
        """What a file of records says of the engine; nothing for transformers, the engine of old files."""
        return {"engine": str(self.engine)} if self.engine is EngineName.VLLM else {}


def open_engine(
    path: str,
    settings: EngineSettings,
    *,
    max_num_seqs: int,
    seed: int,
    engines: ExitStack,
    engines_of_command: int = 1,
    shared_prefixes: bool = False,
) -> tuple[Any, Engine]:
    """The tokenizer of the model in `path`, and an engine with the model, which `engines` closes.

    Args:
        engines_of_command: how many are open at once; they divide the GPU's memory.
        shared_prefixes: requests branch from one prompt; see `TransformersEngine`. vLLM always shares.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    if settings.engine is EngineName.VLLM:
        engine = _vllm(path, settings, max_num_seqs, seed, engines_of_command)
        return tokenizer, engines.enter_context(engine)
    made = _transformers(path, tokenizer, max_num_seqs, seed, shared_prefixes)
    return tokenizer, engines.enter_context(made)


def _vllm(path: str, settings: EngineSettings, max_num_seqs: int, seed: int, sharing: int) -> "VllmEngine":
    from verl_longshort.engines.vllm_engine import VllmEngine

    return VllmEngine(
        path,
        max_num_seqs=max_num_seqs,
        seed=seed,
        tensor_parallel_size=settings.tensor_parallel_size,
        gpu_memory_utilization=settings.gpu_memory_utilization or MEMORY_SHARE / sharing,
    )


def _transformers(
    path: str, tokenizer: Any, max_num_seqs: int, seed: int, shared_prefixes: bool
) -> "TransformersEngine":
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from verl_longshort.engines.transformers_engine import TransformersEngine

    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(path, dtype="auto", attn_implementation="sdpa").to(device)
    return TransformersEngine(
        model,
        tokenizer,
        max_num_seqs=max_num_seqs,
        eos_token_ids=_end_tokens(model, tokenizer),
        seed=seed,
        shared_prefixes=shared_prefixes,
    )


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The ends that the model's generation config names (a chat model has several), and the tokenizer's."""
    named = model.generation_config.eos_token_id
    ends = named if isinstance(named, list) else [named]
    return {token for token in (*ends, tokenizer.eos_token_id) if token is not None}


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1


def _chosen(value: str, key: str) -> EngineName:
    try:
        name = EngineName(value)
    except ValueError:
        raise UserError(key, value, f"must be one of {', '.join(EngineName)}") from None
    if name is EngineName.AUTO:
        return EngineName.VLLM if _vllm_installed() and _has_gpu() else EngineName.TRANSFORMERS
    if name is EngineName.VLLM:
        _check_vllm(key)
    return name


def _check_vllm(key: str) -> None:
    if not _vllm_installed():
        remedy = "vLLM is not installed: pip install 'verl-longshort[gpu]', or take transformers"
        raise UserError(key, EngineName.VLLM, remedy)
    if not _has_gpu() and (dry_run() is not None or "cpu" not in version("vllm")):
        remedy = "this build of vLLM needs a GPU and there is none: take transformers"
        raise UserError(key, EngineName.VLLM, remedy)


def _vllm_installed() -> bool:
    # a dry run plans for a machine that may be another one
    return dry_run() is not None or importlib.util.find_spec("vllm") is not None


def _has_gpu() -> bool:
    if (dry := dry_run()) is not None:
        return dry.gpus > 0
    import torch

    return torch.cuda.is_available()
