"""The recipes at the paper's scale: stages, and every command composes and is accepted. No GPU, no Hub."""

import os
import re
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import plain_dict, settings_of
from verl_longshort.core.schedule import Round
from verl_longshort.data.chunk import ChunkSettings
from verl_longshort.data.prepare_settings import ChainSettings, TrainingProblemSettings
from verl_longshort.data.synthesis import SynthesisSettings
from verl_longshort.recipe.recipe import Recipe, load_recipe
from verl_longshort.verl_plugin.checks.policy_config import build_policy_configs

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = ("qwen7b", "llama8b")
ROUNDS = ("L1S0", "L2S0", "L2S1", "L3S1", "L3S2", "L4S2")
STAGES = [
    *("problems", "chains", "chunk", "weigh", "coldstart", "sft-long", "sft-short"),
    *("evaluate-long-cot", "evaluate-base", "evaluate-L0S0", "train"),
    *(f"evaluate-{name}" for name in ROUNDS),
    *("table", "report"),
]
CONFIGS = {
    "prepare problems": "prepare_problems",
    "prepare chains": "prepare_chains",
    "train": "longshort_trainer",
    **{name: name for name in ("chunk", "weigh", "coldstart", "sft", "eval")},
}
# What the launcher and the dry run read, beside what stands in commands.
ONE_OF = {"two_policies": "policies", "one_policy": "policies"}
"""Keys of which one takes the place of another."""
READ_ELSEWHERE = {
    "output",
    "seed",
    "show",
    "schedule",
    "policies",
    "environment",
    "stall_minutes",
    "stages",
    "gpu.memory_gb",
    "gpu.peak_tflops",
}

Commands = dict[str, tuple[str, ...]]


def plan(name: str, *overrides: str) -> Recipe:
    return load_recipe(RECIPES / f"{name}.yaml", overrides)


def commands_of(name: str, folder: Path, *overrides: str, stages: Sequence[str] = STAGES) -> Commands:
    """What stages give to `longshort`, found out by their own scripts with another `longshort`.

    The last word of each command names the GPU it is shown.
    """
    stub = folder / "longshort"
    stub.write_text(f'#!/bin/bash\nprintf "%s\\0" "$@" "gpu=$CUDA_VISIBLE_DEVICES" >> {folder}/log\n')
    stub.chmod(0o755)
    made: Commands = {}
    (folder / "out/results").mkdir(parents=True)
    for stage in plan(name, f"output={folder}/out", *overrides).stages:
        if stage.name in stages:
            path = f"{folder}:{os.environ['PATH']}"
            environment = {**os.environ, **stage.environment, "PATH": path}
            subprocess.run(stage.command, env=environment, check=True, cwd=folder)
            made[stage.name] = tuple((folder / "log").read_text().split("\0")[:-1])
            (folder / "log").unlink()
    return made


@pytest.fixture(scope="module", params=NAMES)
def recipe(request, tmp_path_factory):
    return request.param, commands_of(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(autouse=True)
def gpu_node(monkeypatch):
    """A machine with GPUs and vLLM, on which every model and every file of an earlier stage is there."""
    monkeypatch.setattr("verl_longshort.engines.factory._has_gpu", lambda: True)
    monkeypatch.setattr("verl_longshort.engines.spec.EngineSpec.installed", True)
    monkeypatch.setattr("verl_longshort.base.files.check_model", lambda *_, **__: None)
    monkeypatch.setattr("verl_longshort.problems.sources.is_planned", lambda _: True)


@lru_cache
def composed(command: tuple[str, ...]) -> Any:
    words = 2 if command[0] == "prepare" else 1
    name = CONFIGS[" ".join(command[:words])]
    return compose_config(name, command[words:-1], unused=("reward.reward_model",))


def block(commands: Commands, stage: str) -> dict[str, Any]:
    return plain_dict(composed(commands[stage]).longshort)


@pytest.mark.parametrize("name", NAMES)
def test_the_stages_are_the_whole_method(name):
    assert [stage.name for stage in plan(name).stages] == STAGES


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_used(name):
    text = "".join((RECIPES / file).read_text() for file in ("paper.yaml", f"{name}.yaml"))
    settings = yaml.safe_load((RECIPES / "paper.yaml").read_text())
    keys = [
        f"{ONE_OF.get(key, key)}.{part}" if isinstance(value, dict) else key
        for key, value in settings.items()
        for part in (value if isinstance(value, dict) else [""])
        if key not in READ_ELSEWHERE
    ]
    unused = [key for key in keys if key not in READ_ELSEWHERE and f"${{{key}}}" not in text]
    assert not unused
    own = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    own.pop("include")
    assert all(key in settings for key in own)
    assert all(part in settings[key] for key in ("model", "memory") for part in own.get(key, {}))


@pytest.mark.parametrize("name", NAMES)
def test_the_script_runs_its_recipe(name):
    script = RECIPES / f"run_{name}.sh"
    assert os.access(script, os.X_OK)
    assert f'run.sh" {name} "$@"' in script.read_text()
    assert 'exec longshort recipe "recipes/$1.yaml" "${@:2}"' in (RECIPES / "run.sh").read_text()
    for file in (script, RECIPES / "run.sh"):
        assert subprocess.run(["bash", "-n", file]).returncode == 0


def test_every_command_composes(recipe):
    for stage, command in recipe[1].items():
        if stage not in ("table", "report"):
            assert composed(command) is not None, stage


def test_the_data_stages_take_their_settings(recipe):
    _, commands = recipe
    problems = TrainingProblemSettings.parse(block(commands, "problems"))
    assert "math500" in problems.held_out
    chains = ChainSettings.parse(block(commands, "chains"))
    assert str(problems.output_dir / "val.parquet") in chains.held_out
    chunk = ChunkSettings.parse(block(commands, "chunk"))
    assert chunk.llm.model == "Qwen/Qwen2.5-72B-Instruct"
    weighed = block(commands, "weigh")
    joining = weighed["joining"]
    assert joining["close"] == "\n\nNow the rest of the solution, up to the final answer in \\boxed{}:\n\n"
    assert weighed["system_prompt"].endswith("within \\boxed{}.")
    cold = SynthesisSettings.parse(block(commands, "coldstart"))
    assert cold.rule == "m"
    # each stage reads what the one before has written
    assert chains.output == chunk.input
    assert str(chunk.output) == weighed["input"]
    assert Path(weighed["output"]) == cold.input


def test_fine_tuning_is_the_same_for_both_roles(recipe):
    _, commands = recipe
    long, short = (composed(commands[f"sft-{role}"]) for role in ("long", "short"))
    assert (long.longshort.role, short.longshort.role) == ("long", "short")
    assert (long.optim.lr, long.optim.lr_scheduler_type, long.optim.lr_warmup_steps_ratio) == (
        1e-5,
        "cosine",
        0.1,
    )
    assert long.trainer.total_epochs == 3
    assert long.data.train_batch_size % long.trainer.n_gpus_per_node == 0
    assert long.model.path == short.model.path
    cold = block(commands, "coldstart")["output_dir"]
    assert long.data.train_files == short.data.train_files == f"{cold}/train.jsonl"


def test_training_is_the_papers(recipe):
    _, commands = recipe
    config = composed(commands["train"])
    settings = settings_of(config)
    long, short = Round.LONG, Round.SHORT
    assert list(settings.schedule.rounds) == [long, long, short, long, short, long]
    assert (settings.weights.mu.start, settings.weights.mu.end) == (0.0, 0.2)
    policies = build_policy_configs(config, settings.schedule)
    for role in ("long", "short"):
        actor, rollout = (policies[role]["actor_rollout_ref"][part] for part in ("actor", "rollout"))
        assert policies[role]["actor_rollout_ref"]["model"]["path"].endswith(f"sft/{role}")
        assert (rollout["name"], rollout["n"]) == ("vllm", 8)
        assert (actor["use_kl_loss"], actor["kl_loss_coef"]) == (True, 0.04)
        assert actor["fsdp_config"]["param_offload"]
        assert actor["fsdp_config"]["optimizer_offload"]
        correction = policies[role]["algorithm"]["rollout_correction"]
        assert (correction["rollout_is"], correction["rollout_is_threshold"]) == ("token", 2.0)
        assert rollout["calculate_log_probs"]
        # both engines share a GPU, and something has to be left for contexts and workspaces
        assert 2 * rollout["gpu_memory_utilization"] < 0.9
    trajectories = config.data.train_batch_size * config.actor_rollout_ref.rollout.n
    assert trajectories == 384 * 2
    assert config.data.max_response_length > settings.limits.token_budget


def test_verl_accepts_both_policies(recipe):
    from omegaconf import OmegaConf
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    config = composed(recipe[1]["train"])
    for policy in map(OmegaConf.create, build_policy_configs(config, settings_of(config).schedule).values()):
        assert need_reference_policy(policy)
        validate_config(config=policy, use_reference_policy=True, use_critic=need_critic(policy))
        assert omega_conf_to_dataclass(policy.actor_rollout_ref.actor).strategy == "fsdp2"
        assert omega_conf_to_dataclass(policy.actor_rollout_ref.rollout).name == "vllm"
    tuned = composed(recipe[1]["sft-long"])
    for part in ("engine", "optim", "checkpoint"):
        assert omega_conf_to_dataclass(tuned[part]) is not None


def test_every_pair_is_evaluated_on_its_own_gpu(recipe):
    _, commands = recipe
    steps = composed(commands["train"]).longshort.steps_per_round
    for number, name in enumerate(ROUNDS, start=1):
        settings = block(commands, f"evaluate-{name}")
        assert settings["name"] == name
        for role in ("long", "short"):
            assert settings["models"][role].endswith(f"pair/{role}/global_step_{steps * number}/actor/huggingface")
    gpus = [commands[f"evaluate-{name}"][-1] for name in ROUNDS]
    assert sorted(gpus) == [f"gpu={number}" for number in range(6)]


def test_single_models_answer_as_they_like(recipe):
    _, commands = recipe
    for stage in ("evaluate-long-cot", "evaluate-base"):
        settings = block(commands, stage)
        assert settings["mode"] == "plain"
        assert settings["template"] == (
            "{problem} Please reason step by step, and put your final answer within \\boxed{}."
        )
        assert settings["benchmarks"] == ["math500", "aime24", "aime25", "gpqa_diamond", "amc23"]


def test_the_table_shows_what_was_evaluated(recipe):
    _, commands = recipe
    table = commands["table"]
    rows = [Path(word).stem for word in table if word.endswith(".jsonl")]
    evaluated = [block(commands, stage)["name"] for stage in commands if stage.startswith("evaluate")]
    assert rows == evaluated
    assert rows[0] == "long-CoT"


def test_an_endpoint_a_file_of_chains_and_a_folder_of_benchmarks(tmp_path, monkeypatch):
    # with an endpoint the data stages need no GPU
    monkeypatch.setattr("verl_longshort.engines.factory._has_gpu", lambda: False)
    changed = ("llm.base_url=http://llm:8000/v1", "data.chains=/r1.jsonl", "data.benchmark_dir=/b")
    stages = ("chunk", "chains", "evaluate-base")
    commands = commands_of("qwen7b", tmp_path, *changed, stages=stages)
    assert ChunkSettings.parse(block(commands, "chunk")).llm.base_url == "http://llm:8000/v1"
    assert block(commands, "chains")["chains"] == "/r1.jsonl"
    assert block(commands, "evaluate-base")["benchmark_dir"] == "/b"


def test_null_is_written_as_hydra_reads_it():
    settings = plan("qwen7b", "data.chains=x", "llm.base_url=null").settings
    assert settings["llm"]["base_url"] is None
    words = [word for stage in plan("qwen7b", "llm.base_url=null").stages for word in stage.command]
    assert "longshort.llm.base_url=null" in words
    assert not any(re.search(r"\bNone\b", word) for word in words)


def test_more_nodes_come_from_the_environment(tmp_path, monkeypatch):
    assert plan("qwen7b").settings["nnodes"] == 1
    monkeypatch.setenv("NNODES", "2")
    config = composed(commands_of("qwen7b", tmp_path, stages=("train",))["train"])
    assert config.trainer.nnodes == 2


@pytest.mark.parametrize("name", NAMES)
def test_another_schedule_has_its_own_evaluations(name):
    recipe = plan(name, "schedule=[both,short]", "rl.steps_per_round=5")
    rounds = {stage.name: stage for stage in recipe.stages if re.fullmatch(r"evaluate-L\d+S\d+", stage.name)}
    assert list(rounds) == ["evaluate-L0S0", "evaluate-L1S1", "evaluate-L1S2"]
    assert any("global_step_10/" in word for word in rounds["evaluate-L1S2"].command)
    (train, table) = (next(s for s in recipe.stages if s.name == name) for name in ("train", "table"))
    assert "longshort.schedule=[both,short]" in train.command
    assert "longshort.steps_per_round=5" in train.command
    assert [Path(word).stem for word in table.command if "/L" in word] == ["L0S0", "L1S1", "L1S2"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_fewer_gpus_are_other_numbers(name, gpus, tmp_path):
    """The same commands but for the GPUs that each one uses, and no stage waits for more than there are."""

    def words(recipe):
        return [word for stage in recipe.stages for word in stage.command]

    fewer, all_of_them = plan(name, f"gpu.count={gpus}"), plan(name)
    changed = [pair for pair in zip(words(fewer), words(all_of_them), strict=True) if pair[0] != pair[1]]
    keys = {word.partition("=")[0].rpartition(".")[2] for pair in changed for word in pair}
    assert keys == {"n_gpus_per_node", "tensor_parallel_size"}
    assert all(word.endswith(f"={gpus}") for word, _ in changed)
    visible = [stage.environment.get("CUDA_VISIBLE_DEVICES", "") for stage in fewer.stages]
    assert {gpu for one in visible for gpu in one.split(",") if gpu} == set(map(str, range(gpus)))


def test_on_a_cpu_the_engines_need_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr("verl_longshort.engines.factory._has_gpu", lambda: False)
    changed = ("device=cpu", "gpu.count=1", "llm.base_url=http://llm:8000/v1", "data.chains=/r1.jsonl")
    commands = commands_of("qwen7b", tmp_path, *changed)
    assert plan("qwen7b", *changed).environment["VERL_PLATFORM"] == "cpu"
    config = composed(commands["train"])
    policies = build_policy_configs(config, settings_of(config).schedule)
    rollout = policies["long"]["actor_rollout_ref"]["rollout"]
    assert (config.trainer.device, config.trainer.n_gpus_per_node, rollout["name"]) == ("cpu", 1, "transformers")
    for stage in ("evaluate-long-cot", "weigh"):
        assert block(commands, stage)["tensor_parallel_size"] == 1


def test_options_come_last(tmp_path):
    options = {"sft": "optim.lr=3e-5", "train": "longshort.keep_checkpoints=1", "evaluate": "longshort.temperature=1.0"}
    changed = [f"options.{key}=[{value}]" for key, value in options.items()]
    commands = commands_of("qwen7b", tmp_path, *changed)
    for stage, command in commands.items():
        kind = {"sft": "sft", "train": "train", "eval": "evaluate"}.get(command[0])
        assert kind is None or command[-2] == options[kind], stage
    assert composed(commands["sft-short"]).optim.lr == 3e-5
    assert composed(commands["train"]).longshort.keep_checkpoints == 1
    assert block(commands, "evaluate-L1S0")["temperature"] == 1.0


def test_fewer_gpus_evaluate_fewer_rounds_at_a_time():
    groups = [[stage.name for stage in group] for group in plan("qwen7b", "gpu.count=4").groups]
    assert ["evaluate-L1S0", "evaluate-L2S0", "evaluate-L2S1", "evaluate-L3S1"] in groups
    assert ["evaluate-L3S2", "evaluate-L4S2"] in groups


def test_another_base_is_one_file(tmp_path):
    """A recipe for another base includes the package's paper.yaml from any folder."""
    file = tmp_path / "small.yaml"
    file.write_text(
        "include: paper.yaml\noutput: runs/small\n"
        "model: {base: me/base, long_cot: me/reasoner, tensor_parallel: 2}\nllm: {model: me/writer}\n"
    )
    recipe = load_recipe(file, ["schedule=[long,short]"])
    names = [stage.name for stage in recipe.stages]
    assert names == [*STAGES[:11], "evaluate-L1S0", "evaluate-L1S1", "table", "report"]
    assert any(word == "model.path=me/base" for stage in recipe.stages for word in stage.command)
