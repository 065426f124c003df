"""The controls' recipes: every command composes, and learns from what the pair learned from."""

import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import plain_dict, settings_of
from verl_longshort.config.single_model import single_settings_of
from verl_longshort.evaluation.settings import EarlyStop
from verl_longshort.recipe.recipe import load_recipe
from verl_longshort.recipe.stage_process import stage_environment

RECIPES = Path(__file__).parents[2] / "recipes"
PAIRS = {"controls": "tiny", "qwen7b_controls": "qwen7b", "llama8b_controls": "llama8b"}
CONTROLS = ["early-stop", "prompt-only", "long-alone", "single-length", "single", "single-sft", "single-dler", "tied"]
CONFIGS = {"train": "longshort_trainer", "train-single": "single_trainer", "eval": "eval", "sft": "sft"}
SAME = (
    "data.train_batch_size",
    "data.seed",
    "data.max_prompt_length",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature",
    "actor_rollout_ref.rollout.seed",
    "actor_rollout_ref.actor.optim",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.use_kl_loss",
    "actor_rollout_ref.actor.kl_loss_coef",
    "trainer.test_freq",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("controls")


@lru_cache
def commands(name: str, stage: str, folder: Path) -> list[tuple[str, ...]]:
    """What a stage gives to `longshort`, found out by its own script with another `longshort`."""
    stub = folder / "longshort"
    stub.write_text(f'#!/bin/bash\nprintf "%s\\0" "$@" "" >> {folder}/log\n')
    stub.chmod(0o755)
    plan = load_recipe(RECIPES / f"{name}.yaml", [f"output={folder}/out"])
    (planned,) = [one for one in plan.stages if one.name == stage]
    (folder / "out").mkdir(exist_ok=True)
    environment = stage_environment(planned.environment)
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    subprocess.run(planned.command, env=environment, check=True, cwd=folder)
    said = (folder / "log").read_text()
    (folder / "log").unlink()
    return [tuple(words.split("\0")) for words in said.removesuffix("\0\0").split("\0\0")]


@lru_cache
def composed(words: tuple[str, ...]) -> Any:
    command = CONFIGS[words[0]]
    return compose_config(command, words[1:], unused=("reward.reward_model",))


@pytest.mark.parametrize("name", PAIRS)
def test_the_stages(name: str) -> None:
    stages = load_recipe(RECIPES / f"{name}.yaml", []).stages
    assert [stage.name for stage in stages] == [*CONTROLS, "table"]


@pytest.mark.parametrize(("name", "pair"), PAIRS.items())
def test_a_single_model_learns_as_the_pair_did(name: str, pair: str, folder: Path) -> None:
    (training,) = commands(pair, "train", folder)
    theirs = composed(training)
    settings = settings_of(theirs)
    for stage, mu in (("single-length", settings.weights.mu.end), ("single", 0.0)):
        training, _ = commands(name, stage, folder)
        own = composed(training)
        single = single_settings_of(own)
        for key in SAME:
            assert OmegaConf.select(own, key) == OmegaConf.select(theirs, key), key
        for key in ("data.train_files", "data.val_files"):
            assert Path(OmegaConf.select(own, key)).name == Path(OmegaConf.select(theirs, key)).name
        assert single.steps == settings.schedule.total_steps
        assert single.token_budget == settings.limits.token_budget
        assert (single.weights.mu.end, single.weights.mu.end_step) == (mu, settings.weights.mu.end_step)
        assert single.weights.eta == settings.weights.eta
        assert single.weights.lambda_ == settings.weights.lambda_


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("stage", CONTROLS)
def test_what_is_evaluated(name: str, stage: str, folder: Path) -> None:
    words = commands(name, stage, folder)[-1]
    block = plain_dict(composed(words).longshort)
    assert words[0] == "eval"
    assert block["name"] == stage
    EarlyStop.parse(block["early_stop"])
    asked = ("long", "short") if block["mode"] == "pair" else ("single",)
    assert all(block["models"][speaker] for speaker in asked)
    if stage.startswith("single"):
        own = composed(commands(name, stage, folder)[-2])
        steps, folder = own.longshort.steps, own.trainer.default_local_dir
        assert block["models"]["single"] == f"{folder}/global_step_{steps}/actor/huggingface"
        if stage == "single-dler":
            # what is truncated in training is only longer afterwards
            assert block["environment"]["token_budget"] > own.longshort.token_budget
        else:
            assert block["environment"]["token_budget"] == own.longshort.token_budget
        # asked as in training
        assert block["mode"] == own.longshort.mode
        assert block["system_prompt"] == own.longshort.system_prompt


@pytest.mark.parametrize(("name", "pair"), PAIRS.items())
def test_one_model_is_taught_what_the_pair_was_taught_and_learns_as_it_did(name: str, pair: str, folder: Path) -> None:
    (training,) = commands(pair, "train", folder)
    theirs, (pairs_sft,) = composed(training), commands(pair, "sft-long", folder)
    taught, first, trained, last = commands(name, "single-sft", folder)
    sft, own = composed(taught), composed(trained)
    _same_fine_tuning(sft, composed(pairs_sft))
    assert sft.longshort.role == "alone"
    assert own.longshort.model == sft.longshort.output_dir
    for key in SAME:
        assert OmegaConf.select(own, key) == OmegaConf.select(theirs, key), key
    single, settings = single_settings_of(own), settings_of(theirs)
    assert single.weights == settings.weights
    assert (single.steps, single.token_budget) == (settings.schedule.total_steps, settings.limits.token_budget)
    # the model is asked in one way from SFT to the end
    assert {composed(each).longshort.mode for each in (first, trained, last)} == {"joint"}
    assert len({composed(each).longshort.system_prompt for each in (taught, first, trained, last)}) == 1


@pytest.mark.parametrize("name", PAIRS)
def test_dler_is_the_published_one(name: str, folder: Path) -> None:
    own = composed(commands(name, "single-dler", folder)[0])
    weights = single_settings_of(own).weights
    assert (weights.eta, weights.lambda_, weights.mu.start, weights.mu.end, weights.rethink) == (1, 0, 0, 0, 0)
    assert own.algorithm.adv_estimator == "reinforce_plus_plus_baseline"
    assert (own.algorithm.filter_groups.enable, own.algorithm.filter_groups.metric) == (True, "acc")
    actor = own.actor_rollout_ref.actor
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.28, 10.0)
    assert (actor.use_kl_loss, actor.kl_loss_coef) == (True, 0.0005)
    # clipping acts only between several updates
    assert own.data.train_batch_size == 4 * actor.ppo_mini_batch_size
    single = composed(commands(name, "single", folder)[0])
    assert own.data.max_response_length == own.longshort.token_budget < single.longshort.token_budget
    for key in ("data.train_batch_size", "data.seed", "longshort.steps", "actor_rollout_ref.rollout.n"):
        assert OmegaConf.select(own, key) == OmegaConf.select(single, key), key


@pytest.mark.parametrize(("name", "pair"), PAIRS.items())
def test_the_tied_policy_learns_as_the_pair_did(name: str, pair: str, folder: Path) -> None:
    (training,) = commands(pair, "train", folder)
    theirs, (pairs_sft,) = composed(training), commands(pair, "sft-long", folder)
    taught, first, trained, last = commands(name, "tied", folder)
    sft, own = composed(taught), composed(trained)
    _same_fine_tuning(sft, composed(pairs_sft))
    assert sft.longshort.role == "both"
    for key in (*SAME, "data.max_response_length", "longshort.environment", "longshort.reward"):
        assert OmegaConf.select(own, key) == OmegaConf.select(theirs, key), key
    settings, expected = settings_of(own), settings_of(theirs)
    assert settings.tied
    assert settings.schedule.total_steps == expected.schedule.total_steps
    models = [plain_dict(composed(each).longshort)["models"] for each in (first, last)]
    final = f"{own.trainer.default_local_dir}/tied/global_step_{settings.schedule.total_steps}/actor/huggingface"
    for used, model in zip(models, (sft.longshort.output_dir, final), strict=True):
        assert (used["long"], used["short"]) == (model, model)


def _same_fine_tuning(own: Any, theirs: Any) -> None:
    for key in ("data.train_batch_size", "data.max_length", "optim", "trainer.total_epochs", "trainer.seed"):
        assert OmegaConf.select(own, key) == OmegaConf.select(theirs, key), key
    for key in ("model.path", "data.train_files"):
        assert Path(OmegaConf.select(own, key)).name == Path(OmegaConf.select(theirs, key)).name, key


def test_the_probe_of_the_miniature_world(folder: Path) -> None:
    block = plain_dict(composed(commands("controls", "early-stop", folder)[-1]).longshort)
    assert block["early_stop"] == {
        "boundaries": ["."],
        "agree": 2,
        "probe": "</think> <answer>",
        "probe_tokens": 4,
    }
