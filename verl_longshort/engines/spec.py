"""What an engine is to the rest of the package: how it generates, and what it can do.

Each engine describes itself by one `EngineSpec` (`transformers.py`, `vllm.py`); `registry.py` lists them. Everything
else asks a spec what the engine can do and never compares names. Light: no torch.
"""

import importlib.util
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from verl_longshort.core.trajectory import Generation
from verl_longshort.core.watching import Piece


class Engine(Protocol):
    """What commands use of an engine."""

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer at most."""
        ...

    async def generate(self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        """See `trajectory.Generate`."""
        ...


@runtime_checkable
class StreamingEngine(Engine, Protocol):
    """An engine that tells what it generates while it does."""

    async def stream(
        self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any], on_piece: Callable[[Piece], None]
    ) -> Generation:
        """See `trajectory.Stream`."""
        ...


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What an engine is opened with."""

    path: str
    tokenizer: Any
    max_num_seqs: int
    """Requests that run at once; further ones wait."""
    seed: int
    """Of requests that bring no seed of their own."""
    tensor_parallel_size: int
    gpu_memory_utilization: float
    """Share of each GPU's memory."""
    shared_prefixes: bool
    """Requests branch from one prompt."""
    trust_remote_code: bool = False
    """Code that comes with the model may run."""


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """An engine's name and abilities."""

    name: str
    """As in a command's `engine` and in verl's `rollout.name`."""
    title: str = ""
    """For messages."""
    package: str | None = None
    """Importable package that it needs beyond those of every installation."""
    install: str = ""
    """The command that installs the package."""
    open: Callable[[EngineOptions], AbstractContextManager[Engine]] | None = None
    """Opens one in this process; None: only verl has it."""
    needs_gpu: bool = False
    """`auto` takes it only where there is a GPU."""
    runs_without_gpu: Callable[[], bool] = lambda: True
    """Whether the installed build of one that needs a GPU can do without, when it is chosen by name."""
    spreads: bool = False
    """Spreads a model over several GPUs."""
    takes_adapters: bool = False
    """Its servers take LoRA adapters beside the weights that they belong to."""
    merges_adapters: bool = False
    """Loads the folder of a LoRA adapter, which it merges into its base."""
    reserves_memory: bool = False
    """Takes its share of a GPU's memory at once; others grow with their requests."""
    fast: bool = False
    """Has fused kernels and CUDA graphs; a plan assumes their throughput."""
    in_headers: bool = True
    """Files of records name it."""
    adapt_sampling: Callable[[Mapping[str, Any], int], dict[str, Any]] = lambda sampling, prompt_tokens: dict(sampling)
    """Sampling keys of a trajectory's turn and the number of prompt tokens -> keys as the engine needs them."""

    @property
    def installed(self) -> bool:
        """Whether this machine has its package."""
        return self.package is None or importlib.util.find_spec(self.package) is not None
