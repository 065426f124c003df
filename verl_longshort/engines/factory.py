"""The engine of a command in its own process: settings, choice, opening, and what it requires.

`longshort eval`, `longshort weigh` and the in-process language model of the data stages get their models
here. The keys are documented in `config/local_engine/default.yaml`.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any

from longshort_reward.settings import Remedy, SettingError, Settings
from pydantic import Field, Strict, field_validator, model_validator
from typing_extensions import Self

from verl_longshort.base.device import finds_gpu
from verl_longshort.base.dry_run import planned_gpus, planning
from verl_longshort.base.files import absolute_model
from verl_longshort.base.requirements import EngineUse, GenerationWork, Product, Requirements
from verl_longshort.engines.registry import DEFAULT, ENGINES, spec_of
from verl_longshort.engines.spec import Engine, EngineOptions, EngineSpec

AUTO = "auto"
"""The first of `ENGINES` that can run."""

MEMORY_SHARE = 0.9
"""Of a GPU, for all engines of a command together, where the settings do not say."""

PROMPT_ROOM = 4096
"""Tokens that a plan gives a prompt room for; in a run it may have as many as the model takes."""


class EngineSettings(Settings):
    """How a command runs models in its own process: base class of the settings of every such command.

    The keys stand in the command's own block, next to its other keys. So the block's class inherits from this one, and
    `open_engine` and `local_engine` take the block as it is.
    """

    engine: str = AUTO
    tensor_parallel_size: Annotated[int, Strict(), Field(ge=1), Remedy("must be a number of GPUs, 1 or more")] = 1
    gpu_memory_utilization: Annotated[
        Annotated[float, Strict(), Field(gt=0, le=1)] | None, Remedy("must be a share above 0 and up to 1, or null")
    ] = None

    trust_remote_code: Annotated[bool, Strict(), Remedy("must be true or false")] = False

    @property
    def runs_here(self) -> bool:
        """Whether models run in this process at all. A subclass returns False when an endpoint is used, and then this
        machine's engines are not checked.
        """
        return True

    @property
    def engine_spec(self) -> EngineSpec:
        """The engine, with `auto` settled. Raises SettingError when this machine cannot run it."""
        if self.engine == AUTO:
            able = (spec for spec in ENGINES.values() if planning() or spec.installed)
            return next(spec for spec in able if _has_gpu() or not spec.needs_gpu)
        spec = ENGINES[self.engine]
        if not planning() and not spec.installed:
            remedy = f"{spec.title} is not installed: {spec.install}, or take {DEFAULT.name}"
            raise SettingError("engine", spec.name, remedy)
        if spec.needs_gpu and not _has_gpu() and (planning() or not spec.runs_without_gpu()):
            remedy = f"this build of {spec.title} needs a GPU and there is none: take {DEFAULT.name}"
            raise SettingError("engine", spec.name, remedy)
        return spec

    def engine_header(self) -> dict[str, str]:
        """What a file of records says of the engine."""
        spec = self.engine_spec
        return {"engine": spec.name} if spec.in_headers else {}

    @field_validator("engine")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name not in (AUTO, *ENGINES):
            raise SettingError("", name, f"must be one of {', '.join((AUTO, *sorted(ENGINES)))}")
        return name

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if self.runs_here and not self.engine_spec.spreads and self.tensor_parallel_size > 1:
            able = [spec for spec in ENGINES.values() if spec.spreads]
            remedy = (
                f"only {' and '.join(spec.title for spec in able)} spreads a model over several GPUs: set 1, or "
                f"engine to {' or '.join(spec.name for spec in able)}"
            )
            raise SettingError("tensor_parallel_size", self.tensor_parallel_size, remedy)
        return self


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
    from verl_longshort.engines.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(
        path, key="model", trust_remote_code=settings.trust_remote_code, files_key="longshort.trust_remote_code"
    )
    opener = settings.engine_spec.open
    assert opener is not None, "settings name engines of this process only"
    options = EngineOptions(
        path=path,
        tokenizer=tokenizer,
        max_num_seqs=max_num_seqs,
        seed=seed,
        tensor_parallel_size=settings.tensor_parallel_size,
        gpu_memory_utilization=settings.gpu_memory_utilization or MEMORY_SHARE / engines_of_command,
        shared_prefixes=shared_prefixes,
        trust_remote_code=settings.trust_remote_code,
    )
    return tokenizer, engines.enter_context(opener(options))


def local_engine(
    model: str, settings: EngineSettings, *, max_num_seqs: int, new_tokens: int, sharing: int = 1
) -> EngineUse:
    """A model in the command's own process: on GPUs where there are some, else on the CPU.

    `sharing`: how many such models divide the GPU's memory.
    """
    return EngineUse(
        model=absolute_model(model),
        name=settings.engine_spec.name,
        gpus=settings.tensor_parallel_size if planned_gpus() else 0,
        tensor_parallel=settings.tensor_parallel_size,
        memory_share=settings.gpu_memory_utilization or MEMORY_SHARE / sharing,
        max_length=PROMPT_ROOM + new_tokens,
        max_num_seqs=max_num_seqs,
    )


def generating(command: str, work: GenerationWork, products: Sequence[Product]) -> Requirements:
    """Of a command that generates: the GPUs and packages that its engines need."""
    gpus = max((engine.gpus for engine in work.engines), default=0)
    packages = {spec_of(engine.name).package for engine in work.engines}
    return Requirements(
        command=command,
        work=work,
        gpus_per_node=gpus,
        products=tuple(products),
        packages=tuple(sorted(filter(None, packages))),
    )


def _has_gpu() -> bool:
    planned = planned_gpus()
    return finds_gpu() if planned is None else planned > 0
