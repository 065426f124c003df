"""`longshort recipe FILE --dry-run` checks every stage, and leaves nothing behind."""

import io
import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from longshort_reward.errors import UserError
from longshort_reward.settings import SettingError
from rich.console import Console

from verl_longshort.base.dry_run import VARIABLE, DryRun, dry_run
from verl_longshort.base.files import Records, check_model, check_positions, read_records
from verl_longshort.base.requirements import Product, ReinforcementWork, Requirements
from verl_longshort.planner.plan_recipe import plan_recipe

ROOT = Path(__file__).parents[2]


def begin(folder, *products, gpus=8):
    return DryRun.prepare(folder / "stage", products=products, gpus_per_node=gpus)


def tell(dry, **needs):
    with pytest.raises(SystemExit) as ended:
        dry.finish(Requirements(**{"command": "test", **needs}))
    assert ended.value.code == 0


# ---- what a command sees


def test_a_real_run_is_no_dry_run(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert dry_run() is None


def test_what_a_command_tells_is_read_again(tmp_path):
    dry = begin(tmp_path)
    tell(dry, products=(Product(path="/x/y", records=3, config={"hidden_size": 8}),), notes=("a",))
    tell(dry, command="other", gpus_per_node=4)
    first, second = dry.reported()
    assert first.products[0] == Product(path="/x/y", records=3, config={"hidden_size": 8})
    assert (first.notes, second.command, second.gpus_per_node) == (("a",), "other", 4)


def test_planned_are_outputs_and_what_lies_below_them(tmp_path):
    dry = begin(tmp_path, Product(path="/x/data.jsonl", records=7), Product(path="/x/model", model="a/b"))
    assert dry.planned("/x/data.jsonl") == Product(path="/x/data.jsonl", records=7)
    assert dry.planned("/x/model/sub") == Product(path="/x/model/sub", model="a/b")
    assert dry.planned("/x") is None
    assert dry.planned("/x/modell") is None


def test_a_folder_whose_files_are_known_has_no_others(tmp_path):
    dry = begin(tmp_path, Product(path="/x/world"), Product(path="/x/world/train.parquet", records=2))
    assert dry.planned("/x/world/train.parquet") is not None
    assert dry.planned("/x/world/tarin.parquet") is None


def test_a_command_sees_what_one_before_it_in_the_stage_makes(tmp_path):
    dry = begin(tmp_path)
    assert dry.planned("/x/y") is None
    tell(dry, products=(Product(path="/x/y"),))
    assert dry.planned("/x/y") is not None


def test_counts_are_read_or_planned(tmp_path, monkeypatch):
    dry = begin(tmp_path, Product(path="/x/a.jsonl", records=7), Product(path="/x/b.jsonl"))
    monkeypatch.setenv(VARIABLE, str(dry.folder))
    real = tmp_path / "real.jsonl"
    real.write_text('{"a": 1}\n{"a": 2}\n')
    a, b, there = (read_records(path, key="k", columns=()) for path in ("/x/a.jsonl", "/x/b.jsonl", real))
    assert (a.expected, b.expected, there.expected) == (7, None, 2)
    assert Records.joined([a, there]).expected == 9
    assert Records.joined([a, b]).expected is None


def test_inputs_accept_what_is_planned_and_nothing_else(tmp_path, monkeypatch):
    dry = begin(tmp_path, Product(path="/x/a.jsonl", records=7), Product(path="/x/model"))
    monkeypatch.setenv(VARIABLE, str(dry.folder))
    assert read_records("/x/a.jsonl", key="k", columns=()) == []
    check_model("/x/model", key="k")
    check_model("some/model", key="k")
    with pytest.raises(UserError, match="no such file"):
        read_records("/x/b.jsonl", key="k", columns=())
    with pytest.raises(UserError, match="no such folder"):
        check_model("/x/other", key="k")


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        ({"max_position_embeddings": 64}, False),
        ({"max_position_embeddings": 65}, True),
        ({}, True),
        ({"max_position_embeddings": 64, "rope_scaling": {"type": "yarn", "factor": 4.0}}, True),
        ({"max_position_embeddings": 64, "rope_scaling": None}, False),
    ],
)
def test_tokens_that_never_fit_into_a_model(tmp_path, monkeypatch, config, fits):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with nullcontext() if fits else pytest.raises(SettingError, match="64 positions of"):
        check_positions(str(tmp_path), 64, key="k")
    check_positions("owner/name", 10**9, key="k")
    dry = begin(tmp_path, Product(path=str(tmp_path)))
    monkeypatch.setenv(VARIABLE, str(dry.folder))
    check_positions(str(tmp_path), 10**9, key="k")


# ---- the launcher


class Recipe:
    """A recipe in a temporary folder."""

    def __init__(self, folder):
        self.file = folder / "recipe.yaml"
        self.output = folder / "out"

    def write(self, *stages, **other):
        content = {"output": str(self.output), **other, "stages": list(stages)}
        self.file.write_text(yaml.safe_dump(content))
        return self

    def plan(self, *overrides):
        text = io.StringIO()
        code = plan_recipe(self.file, overrides, Console(file=text, width=250))
        assert not self.output.exists()
        return code, text.getvalue()


@pytest.fixture
def recipe(tmp_path):
    return Recipe(tmp_path)


def stage(name, command, *outputs):
    return {"name": name, "minutes": 1, "command": command, "outputs": [f"${{output}}/{o}" for o in outputs]}


WORLD = stage("world", "longshort world --out ${output}/world", "world")
CHUNK = stage(
    "chunk",
    "longshort chunk chains=world longshort.input=${output}/world/${chains} longshort.output=${output}/t.jsonl",
    "t.jsonl",
)


def test_stages_that_read_what_others_will_write(recipe):
    code, shown = recipe.write(WORLD, CHUNK, chains="chains.jsonl").plan()
    assert code == 0, shown
    assert "✓ all stages are valid" in shown


def test_a_file_that_no_stage_writes_is_named_in_one_line(recipe):
    code, shown = recipe.write(WORLD, CHUNK, chains="chians.jsonl").plan()
    assert code == 2
    (line,) = [line for line in shown.splitlines() if line.startswith("✗")]
    assert line == f"✗ chunk: longshort.input = {recipe.output}/world/chians.jsonl: no such file: " + (
        "give the path of a .jsonl file"
    )


def test_a_wrong_key_is_named_in_one_line(recipe):
    bad = {**CHUNK, "command": CHUNK["command"] + " longshort.metohd=rules"}
    code, shown = recipe.write(WORLD, bad, chains="chains.jsonl").plan()
    assert code == 2
    (line,) = [line for line in shown.splitlines() if line.startswith("✗")]
    assert line == "✗ chunk: longshort.metohd = rules: no such key; did you mean longshort.method?"


def test_stages_of_a_group_do_not_see_each_other(recipe):
    code, shown = recipe.write({"parallel": [WORLD, CHUNK]}, chains="chains.jsonl").plan()
    assert code == 2
    assert "chunk: longshort.input" in shown


def test_a_missing_model_is_named(recipe):
    command = (
        "longshort weigh longshort.input=${output}/t.jsonl longshort.output=${output}/w.jsonl "
        "longshort.model=/no/such/model"
    )
    code, shown = recipe.write(WORLD, CHUNK, stage("weigh", command, "w.jsonl"), chains="chains.jsonl").plan()
    assert code == 2
    assert "✗ weigh: longshort.model = /no/such/model: no such folder" in shown


def test_what_a_script_writes_itself_goes_elsewhere(recipe):
    script = "mkdir -p ${output}/results; cd ${output}/results; echo hello > note.txt; cat note.txt"
    code, shown = recipe.write(stage("script", script, "results/note.txt")).plan()
    assert code == 0, shown
    assert "no longshort command" in shown


def problems_and_batch(folder, batch):
    """A recipe that prepares ten problems of a file and trains on so many at a time."""
    rows = [{"problem": f"{word} plus {k}?", "answer": k} for k, word in enumerate("abcdefghijkl")]
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    prepare = (
        f"longshort prepare problems longshort.source={source} longshort.held_out=[] longshort.val_problems=2 "
        "longshort.output_dir=${output}/problems"
    )
    train = (
        "longshort train device=cpu data.train_files=${output}/problems/train.parquet "
        "data.val_files=${output}/problems/val.parquet trainer.default_local_dir=${output}/pair "
        f"data.train_batch_size={batch} actor_rollout_ref.actor.ppo_mini_batch_size={batch} "
        f"longshort.policies.long.actor_rollout_ref.model.path={model} "
        f"longshort.policies.short.actor_rollout_ref.model.path={model}"
    )
    return stage("problems", prepare, "problems"), stage("train", train, "pair")


def test_a_batch_larger_than_the_prepared_problems_is_named(recipe, tmp_path):
    code, shown = recipe.write(*problems_and_batch(tmp_path, 11)).plan()
    assert code == 2
    (line,) = [line for line in shown.splitlines() if line.startswith("✗")]
    assert line == "✗ train: data.train_batch_size = 11: must be from 1 to the number of problems, 10"


def test_a_script_that_fails_says_so(recipe):
    code, shown = recipe.write(stage("script", "echo something; echo the last word >&2; exit 7")).plan()
    assert code == 2
    assert "✗ script: its command ended with status 7: the last word" in shown


def test_a_command_without_dry_run_is_not_run(recipe):
    code, shown = recipe.write(stage("doctor", "longshort doctor --no-ray")).plan()
    assert code == 0
    assert "doctor: doctor was neither run nor checked: it does not support dry runs" in shown


def test_assumptions_can_be_given_though_the_recipe_has_none(recipe):
    recipe.write(WORLD)
    assert recipe.plan("assume.used_share=0.9", "gpu.count=4")[0] == 0
    with pytest.raises(UserError, match="no such key"):
        recipe.plan("assume.used_shear=0.9")


def test_too_little_disk_is_named(recipe):
    base = stage("base", "longshort tiny-base --out ${output}/base", "base")
    code, shown = recipe.write(base).plan("disk.free_gb=1e-9")
    assert code == 2
    assert "free: keep fewer checkpoints" in shown


# ---- training, which asks verl


@pytest.fixture
def trained(recipe, tmp_path):
    """A recipe that trains a pair of a known size on data that an earlier stage writes."""
    model = tmp_path / "model"
    model.mkdir()
    shape = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "model_type": "qwen2"}
    heads = {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064}
    (model / "config.json").write_text(json.dumps({**shape, **heads}))
    command = (
        "longshort train trainer.default_local_dir=${output}/pair data.train_batch_size=96 "
        "actor_rollout_ref.actor.ppo_mini_batch_size=96 "
        "data.train_files=${output}/world/train.parquet data.val_files=${output}/world/val.parquet "
        f"longshort.policies.long.actor_rollout_ref.model.path={model} "
        f"longshort.policies.short.actor_rollout_ref.model.path={model} "
        "actor_rollout_ref.rollout.gpu_memory_utilization=0.4 "
        "actor_rollout_ref.actor.fsdp_config.param_offload=true "
        "actor_rollout_ref.actor.fsdp_config.optimizer_offload=true ${more}"
    )
    outputs = "pair/long/global_step_120/actor/huggingface"
    return recipe.write(WORLD, stage("train", command, outputs), more="trainer.n_gpus_per_node=8", seed=0)


@pytest.mark.integration
def test_a_pair_at_full_size_is_planned(trained):
    code, shown = trained.plan("gpu.count=8", "gpu.memory_gb=80")
    assert code == 0, shown
    assert "long learns" in shown
    assert "sequences of 5120" in shown


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("trainer.n_gpus_per_node=16", "trainer.n_gpus_per_node = 16: the run needs 16 GPUs"),
        (
            "trainer.n_gpus_per_node=8 data.train_batch_size=5000",
            "data.train_batch_size = 5000: must be from 1 to the number of problems, 4000",
        ),
        (
            "trainer.n_gpus_per_node=8 actor_rollout_ref.actor.optim.rl=1",
            "actor_rollout_ref.actor.optim.rl = 1: no such key; did you mean",
        ),
    ],
)
def test_training_that_cannot_work_is_one_line(trained, more, words):
    code, shown = trained.plan(f"more={more!r}", "gpu.count=8", "gpu.memory_gb=80")
    assert code == 2
    (line,) = [line for line in shown.splitlines() if line.startswith("✗ train")]
    assert words in line


@pytest.mark.integration
def test_the_tiny_recipe(tmp_path):
    text = io.StringIO()
    output = tmp_path / "runs"
    code = plan_recipe(ROOT / "recipes/tiny.yaml", [f"output={output}"], Console(file=text, width=200))
    assert code == 0, text.getvalue()
    assert not output.exists()


def test_needs_of_every_kind_survive_the_file(tmp_path):
    dry = begin(tmp_path)
    sizes = {"steps": 1, "prompts": 1, "samples": 1, "prompt_tokens": 1, "new_tokens": 1}
    work = ReinforcementWork(
        policies={}, shared_pool=True, validations=0, validation_problems=None, checkpoints=0, **sizes
    )
    tell(dry, work=work)
    assert dry.reported()[0].work == work
