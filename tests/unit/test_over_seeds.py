"""Figures over seeds, what training cost, and the tables of benchmarks/opponents.py and benchmarks/ablation.py."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers.run import write_evaluation
from longshort_reward.errors import UserError
from rich.console import Console
from safetensors.torch import save_file

from verl_longshort.base.run_record import DONE, Marker, write_marker, write_record
from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import settings_of
from verl_longshort.data.synthesis import SynthesisSettings
from verl_longshort.evaluation.over_seeds import Spread, shown, spread
from verl_longshort.recipe.recipe import Selection
from verl_longshort.report.costs import parameters, rl_cost, sft_cost

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


ablation, opponents = script("ablation"), script("opponents")


def percent(value: float) -> str:
    return f"{value:.1f}"


def test_the_interval_is_students() -> None:
    figure = Spread(values=(90.0, 92.0, 94.0))
    # mean 92, deviation 2, t(0.975, 2) = 4.3027
    assert figure.interval == pytest.approx((92 - 4.3027 * 2 / 3**0.5, 92 + 4.3027 * 2 / 3**0.5), abs=1e-3)
    assert shown(figure, percent) == "92.0 [87.0, 97.0] (90.0 to 94.0)"


def test_one_seed_has_no_interval_and_an_unknown_figure_is_a_dash() -> None:
    assert shown(spread([91.0]), percent) == "91.0"
    assert shown(spread([91.0, None]), percent) == shown(spread([]), percent) == "–"


def write_metrics(folder: Path, steps: list[dict[str, float]]) -> Path:
    folder.mkdir(parents=True)
    lines = [{"step": number, "data": data} for number, data in enumerate(steps)]
    (folder / "metrics.0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def step(kind: str, tokens: float, **more: float) -> dict[str, float]:
    return {f"{kind}/tokens": tokens, f"{kind}/trajectories": 128.0, "timing_s/step": 2.5, **more}


def test_tokens_and_seconds_of_rl(tmp_path: Path) -> None:
    validated = {"val/accuracy": 0.5}
    pair = write_metrics(tmp_path / "pair", [validated, step("pair", 70.0), step("pair", 60.5)])
    assert vars(rl_cost([pair])) == {"tokens": 128 * 70 + 128 * 60 + 64, "seconds": 5.0}
    # groups that were dropped were sampled, too
    filtered = {"training/filter_groups/tokens": 20000.0}
    single = write_metrics(tmp_path / "single", [validated, step("single", 70.0, **filtered)])
    assert vars(rl_cost([single])) == {"tokens": 20000, "seconds": 2.5}
    assert vars(rl_cost([pair, single])) == {"tokens": 36704, "seconds": 7.5}
    assert vars(rl_cost([])) == {"tokens": 0, "seconds": 0}


def test_what_was_not_recorded_is_not_known(tmp_path: Path) -> None:
    old = write_metrics(tmp_path / "old", [{}, {"pair/tokens": 70.0, "timing_s/step": 2.5}])
    assert vars(rl_cost([old])) == {"tokens": None, "seconds": 2.5}
    assert vars(rl_cost([tmp_path / "nowhere"])) == {"tokens": None, "seconds": None}
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft/longshort_sft.json").write_text(json.dumps({"steps": 4}))
    assert vars(sft_cost([tmp_path / "sft"])) == {"tokens": None, "seconds": None}


def model(folder: Path, *sizes: int) -> Path:
    folder.mkdir(parents=True)
    save_file({f"w{k}": torch.zeros(size) for k, size in enumerate(sizes)}, str(folder / "model.safetensors"))
    return folder


def test_parameters_are_those_of_all_models_that_are_held(tmp_path: Path) -> None:
    long, short = model(tmp_path / "long", 30, 4), model(tmp_path / "short", 7)
    assert parameters({"models": {"long": [str(long), []], "short": [str(short), []]}}) == 41
    assert parameters({"models": {"long": [str(long), []], "short": [str(long), []]}}) == 34
    assert parameters({"models": {"single": [str(tmp_path / "gone"), []]}}) is None
    assert parameters({"models": {"single": ["somebody/model", "http://host/v1"]}}) is None


def finished(root: Path, *, right: int) -> Path:
    """A pair's run of two rounds with some of its controls."""
    settings = {"schedule": ["long", "short"], "steps_per_round": 2, "seed": 0}
    root.mkdir()
    write_record(root, recipe=Path("tiny.yaml"), overrides=[], settings=settings, stages={})
    write_evaluation(root, "long-CoT", mode="long_cot", right=5)
    write_evaluation(root, "L1S1", right=right)
    write_evaluation(root / "controls", "single-sft", mode="long_cot", right=right - 1)
    for role in ("long", "short"):
        (root / "sft" / role).mkdir(parents=True)
        summary = {"learned_tokens": 500, "seconds": 30.0}
        (root / "sft" / role / "longshort_sft.json").write_text(json.dumps(summary))
    write_metrics(root / "pair", [{}, step("pair", 70.0), step("pair", 60.0)])
    return root


def test_the_table_of_the_opponents(tmp_path: Path) -> None:
    runs = [finished(tmp_path / f"run-{right}", right=right) for right in (4, 5, 6)]
    cells, content = opponents.table([opponents.entries(run) for run in runs])
    assert cells.headings[:5] == ("", "seeds", "accuracy %", "tokens", "AES")
    lines = {line[0]: dict(zip(cells.headings, line, strict=True)) for line in cells.lines}
    assert list(lines) == ["long-CoT", "pair", "single-sft"]
    pair = lines["pair"]
    assert pair["accuracy %"].startswith("83.3 [")
    assert pair["accuracy %"].endswith("(66.7 to 100.0)")
    assert (pair["seeds"], pair["SFT tokens"], pair["RL tokens"]) == ("3", "1,000", "16,640")
    assert (pair["minutes"], pair["s/problem"], pair["parameters"]) == ("1.1", "0.50", "–")
    assert (lines["long-CoT"]["AES"], lines["long-CoT"]["minutes"]) == ("+0.00", "0.0")
    # it has no record of its training
    assert (lines["single-sft"]["RL tokens"], lines["single-sft"]["minutes"]) == ("–", "–")
    assert content[1]["accuracy %"]["values"] == pytest.approx([400 / 6, 500 / 6, 100])


def test_the_script_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opponents.main([str(finished(tmp_path / "run", right=5)), "--output", str(tmp_path / "out")])
    assert "| pair | 1 | 83.3 |" in (tmp_path / "out/opponents.md").read_text()
    assert json.loads((tmp_path / "out/opponents.json").read_text())["rows"][0]["row"] == "long-CoT"
    with pytest.raises(UserError, match=r"has no run\.json"):
        opponents.entries(tmp_path)


def plan(tmp_path: Path, *arguments: str) -> Any:
    return ablation.planned(ablation.parse(["--output", str(tmp_path / "runs"), *arguments]))


def of(tmp_path: Path, arm: str, *arguments: str) -> Any:
    return next(one for one in plan(tmp_path, *arguments).runs if one.arm.name == arm)


@pytest.fixture
def everything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verl_longshort.base.files.check_model", lambda *_, **__: None)


def test_every_arm_is_a_run_of_the_recipe(tmp_path: Path) -> None:
    arms = [name for group in ablation.groups_of_arms().values() for name in group]
    runs = plan(tmp_path, "--groups", *ablation.groups_of_arms(), "--seeds", "0").runs
    assert [one.arm.name for one in runs] == ["default", *arms]
    assert len({one.recipe.output for one in runs}) == len(runs)
    for one in runs:
        # its stages are there, and they read nothing that is neither shared nor its own
        stages = [stage for group in Selection(only=one.stages).groups(one.recipe) for stage in group]
        read = [word.partition("=")[2] for stage in stages for word in stage.command if str(tmp_path) in word]
        own, shared = str(one.root / one.name), str(one.begin)
        assert read
        assert all(path.startswith((own, shared)) for path in read), one.name
        if one.arm.start == "coldstart":
            assert not any(path.startswith((f"{shared}/cold_start", f"{shared}/sft")) for path in read), one.name
        else:
            assert not any(path.startswith((f"{own}/cold_start", f"{own}/sft")) for path in read), one.name


def trained(one: Any) -> Any:
    command = next(stage.command for stage in one.recipe.stages if stage.name == "train")
    return compose_config("longshort_trainer", command[2:], unused=("reward.reward_model",))


@pytest.mark.usefixtures("everything_is_there")
def test_an_arm_changes_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    default = settings_of(trained(of(tmp_path, "default")))
    assert (default.reward.eta, default.reward.lambda_, default.reward.rethink) == (1.0, 0.1, 0.1)
    changed = {
        "no-answer": {"eta": 0.0},
        "no-format": {"lambda_": 0.0},
        "no-rethink": {"rethink": 0.0},
        "rethink-0.3": {"rethink": 0.3},
    }
    for name, update in changed.items():
        assert settings_of(trained(of(tmp_path, name))).reward == default.reward.model_copy(update=update), name
    for name, end in {"no-length": 0.0, "mu-0.1": 0.1, "mu-0.6": 0.6}.items():
        ramp = settings_of(trained(of(tmp_path, name))).reward.mu
        assert ramp == default.reward.mu.model_copy(update={"end": end}), name
    co_training = settings_of(trained(of(tmp_path, "co-training"))).schedule
    assert [one.value for one in co_training.rounds] == ["both"] * 6
    assert co_training.total_steps == default.schedule.total_steps


@pytest.mark.usefixtures("everything_is_there")
def test_delta_and_turns_reach_the_cold_start(tmp_path: Path) -> None:
    def coldstart(name: str) -> SynthesisSettings:
        one = of(tmp_path, name)
        command = next(stage.command for stage in one.recipe.stages if stage.name == "coldstart")
        return SynthesisSettings.parse(dict(compose_config("coldstart", command[2:]).longshort))

    assert (coldstart("default").rule, coldstart("default").rule_options) == ("m", {})
    assert coldstart("delta-0").rule_options == {"delta": 0}
    assert coldstart("max-turns-2").limits.max_turns == 2
    assert settings_of(trained(of(tmp_path, "max-turns-2"))).limits.max_turns == 2


def test_rates_and_seeds_multiply_the_runs(tmp_path: Path) -> None:
    runs = plan(tmp_path, "--arms", "gdpo", "--rates", "1e-4", "3e-4", "--seeds", "3", "4").runs
    expected = [f"{arm}-{rate}-{seed}" for seed in (3, 4) for rate in ("1e-4", "3e-4") for arm in ("default", "gdpo")]
    assert [one.name for one in runs] == expected
    assert trained(runs[3]).actor_rollout_ref.actor.optim.lr == 3e-4
    assert trained(runs[1]).algorithm.adv_estimator == "gdpo"
    with pytest.raises(UserError, match="--arms = nothing: is none of default, "):
        plan(tmp_path, "--arms", "nothing")


def test_a_start_must_have_been_made_with_the_same_rule(tmp_path: Path) -> None:
    begin = tmp_path / "tiny-0"
    with pytest.raises(UserError, match="is no run of a recipe"):
        plan(tmp_path, "--seeds", "0", "--start", str(tmp_path / "tiny-{seed}"))
    begin.mkdir()
    for rule, message in (("surprise", "rule=surprise"), ("m", None)):
        write_record(begin, recipe=Path("t"), overrides=[], settings={"rule": rule, "seed": 0}, stages={})
        if message:
            with pytest.raises(UserError, match=message):
                plan(tmp_path, "--seeds", "0", "--start", str(tmp_path / "tiny-{seed}"))
        else:
            assert plan(tmp_path, "--seeds", "0", "--start", str(tmp_path / "tiny-{seed}")).given


def finish(one: Any, right: int) -> None:
    """What a run leaves when it is done."""
    recipe = one.recipe
    prints = recipe.fingerprints()
    for stage in recipe.stages:
        if stage.name in one.stages:
            marker = Marker(fingerprint=prints[stage.name], status=DONE, mark="", seconds=1.0)
            file = recipe.output / "stages" / f"{stage.name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_marker(file, marker)
            for output in stage.outputs:
                output.parent.mkdir(parents=True, exist_ok=True)
                if output.suffix != ".jsonl":
                    output.mkdir(exist_ok=True)
    write_evaluation(recipe.output, one.label, right=right)
    write_evaluation(recipe.output, "L0S0", right=2)


def test_the_table_of_the_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = plan(tmp_path, "--arms", "no-length", "delta-0")
    for seed in (0, 1, 2):
        begin = tmp_path / f"runs/start-{seed}"
        write_evaluation(begin, "long-CoT", mode="long_cot", right=5)
        write_evaluation(begin, "L0S0", right=3)
    for one in made.runs:
        if one.arm.name != "delta-0":
            finish(one, right=4 if one.arm.name == "default" else 4 + one.seed % 2)
    assert "delta-0" not in {one.run.arm.name for one in ablation.results(made)}
    cells, content = ablation.table(ablation.results(made))
    lines = {line[0]: dict(zip(cells.headings, line, strict=True)) for line in cells.lines}
    assert list(lines) == ["default, before RL", "default", "no-length"]
    assert lines["default, before RL"]["accuracy %"] == "50.0 [50.0, 50.0] (50.0 to 50.0)"
    assert lines["no-length"]["accuracy − default"].endswith("(+0.0 to +16.7)")
    assert lines["default"]["accuracy − default"] == "–"
    assert content[2]["differences"]["tokens"]["mean"] == 0.0
    # what is done is not listed as to do
    made.listed(Console(width=200))
    said = capsys.readouterr().out
    assert "no-length-0: done" in said
    assert "delta-0-0: coldstart, sft-long, sft-short, train, evaluate-sft, evaluate-L4S2: " in said


def test_the_script_lists_without_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablation.main(["--list", "--seeds", "0", "--arms", "no-length", "--output", str(tmp_path / "runs")]) == 0
    assert "hours in all" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
