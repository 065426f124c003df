"""The plan put together: hours, disk, models, and one clear line for each thing that cannot be."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.requirements import (
    EngineUse,
    FineTuningWork,
    GenerationWork,
    PolicyUse,
    Product,
    ReinforcementWork,
    Requirements,
    TrainedModel,
)
from verl_longshort.planner import models
from verl_longshort.planner.checks import problems
from verl_longshort.planner.estimate import CheckedStage, estimate
from verl_longshort.planner.machine import Machine
from verl_longshort.planner.models import KNOWN
from verl_longshort.planner.show import show
from verl_longshort.planner.work import WorkMaker
from verl_longshort.recipe.assumptions import Assumptions, defaults
from verl_longshort.recipe.recipe import RecipeStage

BASE = "Qwen/Qwen2.5-7B-Instruct"
LAPTOP = Machine(
    gpu_memory_gb=(),
    host_memory_gb=16,
    disk_free_gb=50,
    missing_packages=frozenset({"vllm", "flash_attn"}),
)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """The Hub cannot be reached."""
    monkeypatch.setattr(models.Models, "_ask", lambda self, name: models._unchecked(name))


def assumptions(**changes):
    content = {name: dict(block) for name, block in defaults().items()}
    for key, value in changes.items():
        block, name = key.split("__")
        content[block][name] = value
    return Assumptions.of_recipe(content)


def trained(**changes):
    offload = {"param_offload": True, "optimizer_offload": True}
    sizes = {"gpus": 8, "shards": 8, "tokens": 16384, "forward_tokens": 16384}
    return TrainedModel(**{"model": BASE, "copies_logits": True, "reference": True, **offload, **sizes, **changes})


def engine(**changes):
    sizes = {"gpus": 8, "memory_share": 0.4, "max_length": 6656, "max_num_seqs": 256}
    return EngineUse(**{"model": BASE, "name": "vllm", "sleeps": True, **sizes, **changes})


def reinforce(speaker=None, learner=None, **changes):
    one = PolicyUse(engine=speaker or engine(), trained=learner or trained(), updates=210, checkpoint_bytes=16)
    policies = {"l": one, "s": one}
    sizes = {"steps": 420, "prompts": 96, "samples": 8, "prompt_tokens": 2048, "new_tokens": 4608}
    rest = {"validations": 7, "validation_problems": 500, "checkpoints": 6}
    return ReinforcementWork(**{"policies": policies, "shared_pool": True, **sizes, **rest, **changes})


def stage(name, *needs, group=0, problem=None):
    made = RecipeStage(name=name, minutes=30, command=("true",), outputs=())
    return CheckedStage(stage=made, group=group, needs=needs, problem=problem)


def train(work=None, **changes):
    needs = Requirements(command="train", work=work or reinforce(), gpus_per_node=8, packages=("vllm",))
    return stage("train", dataclasses.replace(needs, **changes))


def plan(*stages, machine=LAPTOP, offline=False, **changes):
    return estimate(stages, assumptions(**changes), machine, offline=offline)


def against(*stages, **more):
    return problems(plan(*stages, **more))


def one_line(lines, *words):
    assert len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines[0]


def test_a_plan_that_fits_has_nothing_against_it():
    assert against(train()) == []


def test_a_stage_that_is_refused():
    lines = against(stage("sft", problem="optim.rl = 1: no such key; did you mean optim.lr?"))
    assert lines == ["sft: optim.rl = 1: no such key; did you mean optim.lr?"]


def test_more_gpus_than_a_node_has():
    one_line(against(train(gpus_per_node=16)), "train: asks for 16 GPUs", "has 8")


def test_gpus_that_are_not_on_this_machine():
    machine = dataclasses.replace(LAPTOP, gpu_memory_gb=(80.0,) * 2, missing_packages=frozenset())
    lines = against(train(), machine=machine, gpu__count=8, host__memory_gb=500, disk__free_gb=2000)
    one_line(lines, "8 GPUs", "this machine has 2", "gpu.count=2")


def test_stages_that_do_not_fit_beside_each_other():
    work = GenerationWork(engines=(engine(gpus=5),), records=1, new_tokens=100)
    pair = [stage(name, Requirements(command="eval", work=work, gpus_per_node=5)) for name in ("one", "two")]
    one_line(against(*pair), "one, two", "10 GPUs")


def test_heads_that_a_tensor_parallel_size_does_not_divide():
    lines = against(train(reinforce(engine(tensor_parallel=8))))
    one_line(lines, "tensor_model_parallel_size = 8", "28 attention heads")


def test_too_little_memory():
    lines = against(train(), gpu__memory_gb=40)
    assert all(line.startswith("train: ") for line in lines)
    (line,) = [line for line in lines if "l learns takes" in line]
    assert "which has 40; most of it: l: weights, fp32" in line or "l: logits" in line
    assert "docs/recipes.md" in line


def test_two_engines_that_each_take_half():
    lines = against(train(reinforce(engine(memory_share=0.5))))
    assert any("generating takes" in line for line in lines)


def test_a_kv_cache_too_small_for_one_sequence():
    lines = against(train(reinforce(engine(memory_share=0.23, max_length=32768))))
    assert any("KV cache holds" in line and "32768" in line for line in lines)


def test_too_little_host_memory():
    one_line(against(train(), host__memory_gb=100), "in the host memory", "100 GiB")


def test_too_little_disk():
    # 2 policies x 16 bytes x 7.6 G parameters x 6
    one_line(against(train(), disk__free_gb=500), "1477 GB", "500 GB free", "keep_checkpoints")


def test_a_missing_package_counts_where_the_recipe_would_run():
    machine = dataclasses.replace(LAPTOP, gpu_memory_gb=(80.0,) * 8, host_memory_gb=1000, disk_free_gb=9000)
    one_line(against(train(), machine=machine), "vllm is not installed")


def test_a_model_that_no_cache_has_and_that_may_not_be_fetched():
    one_line(against(train(), offline=True), BASE, "HF_HUB_OFFLINE")


def test_a_folder_is_read(tmp_path):
    shape = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 10,
    }
    (tmp_path / "config.json").write_text(json.dumps(shape))
    found = models.Models({}, offline=False).find(str(tmp_path))
    assert (found.where, found.shape and found.shape.layers) == ("folder", 2)


def test_a_trained_model_has_the_shape_of_the_one_it_comes_from():
    products = {"/x/sft": Product(path="/x/sft", model=BASE)}
    found = models.Models(products, offline=False).find("/x/sft")
    assert found.shape == KNOWN[BASE]
    assert found.made


def test_a_folder_that_nobody_made_is_not_looked_for_on_the_hub():
    found = models.Models({}, offline=False).find("/x/sft")
    assert (found.where, found.shape, found.problem) == ("no such folder", None, "")


def test_an_unknown_model_is_not_estimated_and_no_mistake():
    work = GenerationWork(engines=(engine(model="some/unknown"),), records=10, new_tokens=100)
    result = plan(stage("eval", Requirements(command="eval", work=work, gpus_per_node=1)))
    assert problems(result) == []
    assert result.stages[0].commands[0].work is None
    assert result.stages[0].stated


def maker(**changes):
    return WorkMaker(shape_of=KNOWN.__getitem__, assumptions=assumptions(**changes))


def test_tokens_of_generation():
    work = GenerationWork(engines=(engine(),), records=1000, samples=8, per_thought=True, new_tokens=1000)
    made = maker(assume__thoughts=14, assume__used_share=0.5).generate(work)
    assert made.generated == 1000 * 8 * 15 * 500


def test_hours_of_fine_tuning():
    work = FineTuningWork(trained=trained(), records=1000, epochs=3, record_tokens=4000)
    made = maker(assume__used_share=0.5, assume__startup_minutes=6).fine_tune(work)
    assert made.trained == 6_000_000
    seconds = 8 * 7_615_616_512 * 6e6 / (8 * 312e12 * 0.35) + 7.615616512 * 4
    assert made.hours == pytest.approx(0.1 + seconds / 3600)


def test_one_policy_for_both_roles_learns_from_two_rows_of_each_trajectory():
    one, two = maker().reinforce(reinforce()), maker().reinforce(reinforce(rows=2))
    assert two.trained == 2 * one.trained > 0
    assert two.generated == one.generated


def test_twice_the_gpus_take_half_the_time_of_learning_and_generation():
    once, twice = (
        maker(assume__startup_minutes=1e-9, assume__step_overhead_s=1e-9, assume__disk_gb_per_s=1e9).reinforce(
            reinforce(engine(gpus=gpus), trained(gpus=gpus))
        )
        for gpus in (8, 16)
    )
    assert once.generated == twice.generated > 0
    assert once.hours == pytest.approx(2 * twice.hours)


def test_stages_of_a_group_count_once():
    stages = [stage("a"), stage("b"), stage("c", group=1)]
    result = plan(*stages)
    assert result.hours == pytest.approx(1.0)
    assert all(one.stated for one in result.stages)


def test_wrong_assumptions_are_refused():
    with pytest.raises(UserError, match=r"assume.used_share = -1.0: must be a number above 0"):
        assumptions(assume__used_share=-1.0)
    with pytest.raises(UserError, match=r"gpu.cuont = 8: unknown key; did you mean count\?"):
        assumptions(gpu__cuont=8)
    with pytest.raises(UserError, match=r"assume.thoughts = auto: must be a number"):
        assumptions(assume__thoughts="auto")


def test_the_whole_is_printed():
    text = io.StringIO()
    made = Requirements(command="sft", work=FineTuningWork(trained=trained(), records=10, epochs=1, record_tokens=100))
    result = plan(stage("sft", made, group=0), train())
    show(result, problems(result), Console(file=text, width=150), renamed=("/scratch", "runs/x"))
    shown = text.getvalue()
    for words in ("l learns", "logits", "KV cache", "7.616 B", "no GPU here", "not installed here", "✓ all"):
        assert words in shown
    show(result, ["sft: bad /scratch/y"], Console(file=text), renamed=("/scratch", str(Path("runs/x"))))
    assert "✗ sft: bad runs/x/y" in text.getvalue()


def test_steps_at_scale():
    needs = Requirements(command="train", work=reinforce(prompts=2), gpus_per_node=8)
    checked = [stage("rl", needs)]
    result = estimate(checked, assumptions(), LAPTOP, offline=True, at_scale=True)
    steps = result.stages[0].commands[0].scaled
    assert len(steps) == 4 * (1 + 2 + 2)
    by_kind = {(one.gpus, one.trajectories, one.separate, one.one_step_off): one.time for one in steps}
    shared, separate = (by_kind[8, 16, apart, False] for apart in (False, True))
    # one policy learns at a time, and the other's GPUs wait
    assert separate.learning_s == pytest.approx(2 * shared.learning_s)
    assert separate.idle > shared.idle
    grown, same = by_kind[64, 128, False, False], by_kind[64, 16, False, False]
    assert grown.learning_s == pytest.approx(shared.learning_s)
    assert grown.tokens_per_s > same.tokens_per_s > shared.tokens_per_s
    text = io.StringIO()
    show(result, [], Console(file=text, width=140), renamed=("/x", "/y"))
    assert "rl: a step at scale, simulated" in text.getvalue()
    assert "one step off" in text.getvalue()


def test_steps_are_simulated_when_they_are_asked_for():
    assert plan(train()).stages[0].commands[0].scaled == ()
