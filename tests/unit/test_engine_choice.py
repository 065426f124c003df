"""Which engine a command gets: `longshort.engine` and its neighbours."""

import asyncio
import importlib.util
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.fake_vllm import FakeVllm
from longshort_reward.errors import UserError

from verl_longshort.base.device import finds_gpu
from verl_longshort.base.dry_run import DryRun
from verl_longshort.base.requirements import GenerationWork
from verl_longshort.config.compose import compose_config
from verl_longshort.core.trajectory import Generation
from verl_longshort.engines import vllm as vllm_engine
from verl_longshort.engines.factory import EngineSettings, generating, local_engine, open_engine
from verl_longshort.engines.registry import ENGINES
from verl_longshort.engines.spec import EngineSpec
from verl_longshort.engines.vllm import VllmEngine

BLOCK = {"engine": "auto", "tensor_parallel_size": 1, "gpu_memory_utilization": None, "trust_remote_code": False}


def parse(**changes: Any) -> EngineSettings:
    return EngineSettings.parse({**BLOCK, **changes})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say what there is: a GPU, vLLM and which build of it."""

    def there_is(*, gpu: bool, vllm: str | None) -> None:
        find = importlib.util.find_spec
        spec = None if vllm is None else find("json")
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "vllm" else find(name))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(vllm_engine, "version", lambda name: vllm)

    return there_is


@pytest.mark.parametrize(
    ("gpu", "vllm", "expected"),
    [(True, "0.24.0", "vllm"), (True, None, "transformers"), (False, "0.24.0", "transformers")],
)
def test_auto(machine: Any, gpu: bool, vllm: str | None, expected: str) -> None:
    machine(gpu=gpu, vllm=vllm)
    assert parse().engine_spec.name == expected


def test_the_environment_keeps_models_off_the_gpu(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(gpu=True, vllm="0.24.0")
    assert finds_gpu()
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    assert not finds_gpu()
    assert parse().engine_spec.name == "transformers"


def test_vllm_asked_for_and_missing(machine: Any) -> None:
    machine(gpu=True, vllm=None)
    with pytest.raises(UserError) as caught:
        parse(engine="vllm")
    assert str(caught.value).startswith("longshort.engine = vllm: vLLM is not installed: pip install")


@pytest.mark.parametrize("gpu", [True, False])
@pytest.mark.parametrize("build", ["0.24.0", "0.24.0+cpu"])
def test_vllm_without_a_gpu_needs_its_cpu_build(machine: Any, gpu: bool, build: str) -> None:
    machine(gpu=gpu, vllm=build)
    if gpu or "cpu" in build:
        assert parse(engine="vllm", tensor_parallel_size=2).engine_spec.name == "vllm"
        return
    with pytest.raises(UserError, match="needs a GPU and there is none"):
        parse(engine="vllm")


MISTAKES = {
    f"longshort.engine = sglang: must be one of {', '.join(['auto', *sorted(ENGINES)])}": {"engine": "sglang"},
    "longshort.tensor_parallel_size = 0: must be a number of GPUs": {"tensor_parallel_size": 0},
    "longshort.tensor_parallel_size = 2: only vLLM": {"engine": "transformers", "tensor_parallel_size": 2},
    "longshort.gpu_memory_utilization = 1.5: must be a share": {"gpu_memory_utilization": 1.5},
    "longshort.gpu_memory_utilization = all: must be a share": {"gpu_memory_utilization": "all"},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(**MISTAKES[message])
    assert message in str(caught.value)


@pytest.mark.parametrize(("gpus", "expected"), [(8, "vllm"), (0, "transformers")])
def test_a_dry_run_plans_for_its_own_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: int, expected: str
) -> None:
    DryRun.prepare(tmp_path / "dry", products=(), gpus_per_node=gpus)
    monkeypatch.setenv("LONGSHORT_DRY_RUN", str(tmp_path / "dry"))
    assert parse().engine_spec.name == expected


def test_files_of_transformers_stay_as_they_were(machine: Any) -> None:
    machine(gpu=True, vllm="0.24.0")
    assert parse(engine="transformers").engine_header() == {}
    assert parse().engine_header() == {"engine": "vllm"}


COMMANDS = {
    "eval": ("longshort", ["longshort.name=a", "longshort.output_dir=b"]),
    "weigh": ("longshort", ["longshort.input=a", "longshort.output=b", "longshort.model=c"]),
    "chunk": ("longshort.llm", ["longshort.input=a", "longshort.output=b"]),
    "coldstart": ("longshort.llm", ["longshort.input=a", "longshort.output_dir=b"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_keys(command: str) -> None:
    where, overrides = COMMANDS[command]
    config = compose_config(command, [*overrides, f"{where}.engine=vllm"])
    block = config.longshort if where == "longshort" else config.longshort.llm
    assert {key: block[key] for key in EngineSettings.model_fields} == {**BLOCK, "engine": "vllm"}


@pytest.mark.parametrize(("given", "together", "share"), [(None, 1, 0.9), (None, 2, 0.45), (0.3, 2, 0.3)])
def test_engines_of_one_command_divide_the_memory(
    monkeypatch: pytest.MonkeyPatch, machine: Any, given: float | None, together: int, share: float
) -> None:
    machine(gpu=True, vllm="0.24.0")
    fake = FakeVllm().install(monkeypatch)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda path, **_: f"tokenizer of {path}")
    settings = parse(engine="vllm", tensor_parallel_size=2, gpu_memory_utilization=given)
    with ExitStack() as stack:
        tokenizer, engine = open_engine(
            "m", settings, max_num_seqs=3, seed=1, engines=stack, engines_of_command=together
        )
        assert (tokenizer, type(engine)) == ("tokenizer of m", VllmEngine)
        assert fake.shut_down == 0
    (args,) = fake.args
    assert (args.tensor_parallel_size, args.max_num_seqs, args.gpu_memory_utilization) == (2, 3, share)
    assert fake.shut_down == 1


class Toy:
    """An engine that writes 7s."""

    max_model_len = 100

    async def generate(self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        return Generation(token_ids=[7] * sampling["max_tokens"], logprobs=None, finish_reason="length")


def test_a_new_engine_is_one_description(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = EngineSpec(name="toy", title="Toy", package="json", open=lambda options: nullcontext(Toy()))
    monkeypatch.setitem(ENGINES, "toy", toy)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda path, **_: None)
    settings = parse(engine="toy")
    assert settings.engine_header() == {"engine": "toy"}
    use = local_engine("a/b", settings, max_num_seqs=1, new_tokens=2)
    assert generating("weigh", GenerationWork(engines=(use,)), []).packages == ("json",)
    with pytest.raises(UserError, match="only vLLM spreads a model over several GPUs"):
        parse(engine="toy", tensor_parallel_size=2)
    with ExitStack() as stack:
        _, engine = open_engine("m", settings, max_num_seqs=1, seed=0, engines=stack)
        made = asyncio.run(engine.generate(request_id="r", prompt_ids=[1], sampling={"max_tokens": 2}))
    assert made.token_ids == [7, 7]
