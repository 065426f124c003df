"""Settings of a single model's training: what is taken, and what is refused before anything starts."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers.tiny_tokenizers import normalising
from omegaconf import OmegaConf

from verl_longshort.cli import main
from verl_longshort.config.compose import compose_config
from verl_longshort.config.single_model import single_settings_of
from verl_longshort.core.single_model import SingleMode
from verl_longshort.verl_plugin.checks.preflight import check_single
from verl_longshort.verl_plugin.launch import SINGLE_CONFIG, UNUSED


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    """Overrides of a run that passes every check."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    normalising().save_pretrained(model)
    row = {"data_source": "t", "prompt": [{"role": "user", "content": "?"}]}
    answer = {"style": "rule", "ground_truth": "1"}
    rows = [{**row, "reward_model": answer, "extra_info": {"index": i}} for i in range(8)]
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    return {
        "device": "cpu",
        "longshort.model": model,
        "longshort.steps": 4,
        "longshort.mode": "long_cot",
        "longshort.token_budget": 320,
        "data.train_files": tmp_path / "rows.parquet",
        "data.val_files": tmp_path / "rows.parquet",
        "data.train_batch_size": 4,
        "trainer.default_local_dir": tmp_path / "run",
    }


def composed(run: dict[str, Any]) -> Any:
    return compose_config(SINGLE_CONFIG, [f"{k}={v}" for k, v in run.items()], unused=UNUSED)


def test_what_is_set_reaches_verl(run: dict[str, Any]) -> None:
    config = composed(run)
    check_single(config)
    settings = single_settings_of(config)
    assert (settings.steps, settings.mode, settings.token_budget) == (4, SingleMode.LONG_COT, 320)
    assert settings.weights.mu.at(4) == 0.2
    assert config.data.max_response_length == 320
    assert config.actor_rollout_ref.model.path == config.critic.model.path == str(run["longshort.model"])


def test_a_model_that_asks_itself_can_be_paid_for_it(run: dict[str, Any]) -> None:
    config = composed({**run, "longshort.mode": "joint", "longshort.reward.rethink": 0.1})
    checked = check_single(config)
    assert single_settings_of(config).weights.rethink == 0.1
    # it writes the protocol's tags, and nothing is written for it
    assert [(maker.protocol, maker.opening) for maker in checked.makers] == [(True, "")]
    assert [maker.protocol for maker in check_single(composed(run)).makers] == [False]


def test_the_same_defaults_as_the_pair(run: dict[str, Any]) -> None:
    model = run["longshort.model"]
    roles = [f"longshort.policies.{r}.actor_rollout_ref.model.path={model}" for r in ("long", "short")]
    pair = compose_config("longshort_trainer", ["device=cpu", *roles], unused=UNUSED)
    own = compose_config(SINGLE_CONFIG, ["device=cpu", f"longshort.model={model}"], unused=UNUSED)
    assert own.longshort.steps == len(pair.longshort.schedule) * pair.longshort.steps_per_round
    assert own.longshort.token_budget == pair.longshort.environment.token_budget
    assert own.longshort.reward.mu == pair.longshort.reward.mu
    for block in ("algorithm", "actor_rollout_ref.actor", "data"):
        ours, theirs = (_plain(config, block) for config in (own, pair))
        assert ours == theirs
    assert own.actor_rollout_ref.rollout.n == pair.actor_rollout_ref.rollout.n
    assert own.actor_rollout_ref.rollout.temperature == pair.actor_rollout_ref.rollout.temperature


def _plain(config: Any, block: str) -> Any:
    return OmegaConf.to_container(OmegaConf.select(config, block), resolve=True)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("longshort.mode", "pair", ("longshort.mode", "long_cot, direct, joint, plain")),
        ("longshort.steps", 0, ("longshort.steps", "1 or more")),
        ("longshort.token_budget", 1, ("longshort.token_budget", "2 or more")),
        ("longshort.reward.mu.end_step", 9, ("longshort.reward.mu.end_step", "4 steps")),
        ("longshort.reward.rethink", 0.1, ("longshort.reward.rethink", "mode long_cot", "never asks")),
        ("longshort.model", "/nowhere/at/all", ("longshort.model", "no such folder")),
        ("data.train_batch_size", 9, ("data.train_batch_size", "8")),
        ("trainer.total_training_steps", 7, ("trainer.total_training_steps", "leave it null")),
    ],
)
def test_what_cannot_work_ends_in_one_line(
    run: dict[str, Any], tmp_path: Path, key: str, value: Any, words: tuple[str, ...]
) -> None:
    result = CliRunner().invoke(main, ["train-single", *(f"{k}={v}" for k, v in {**run, key: value}.items())])
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.output.splitlines() if line.strip()]
    assert all(word in line for word in words), line
    assert not (tmp_path / "run").exists()
