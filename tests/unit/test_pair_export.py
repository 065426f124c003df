"""`longshort export`: what it takes from a run or from two folders, and what other commands make of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.exported import LIMITS, choose_best, export, exported, write_adapter, write_run
from helpers.run import write_evaluation
from longshort_reward.errors import UserError
from longshort_reward.protocol import Role
from test_runner import data, evaluate, models, pair  # noqa: F401 (fixtures)
from transformers import AutoModelForCausalLM

from verl_longshort.base.journal import read_record_file
from verl_longshort.base.pair_file import read_pair
from verl_longshort.base.policy_record import POLICY_FILE
from verl_longshort.engines.loading import load_model
from verl_longshort.sharing.card import fenced
from verl_longshort.stages.eval import EvalStage

NO_PROMPTS = [f"longshort.environment.prompts.{role}=" for role in Role]
GIVEN = [*(f"longshort.environment.{name}={value}" for name, value in LIMITS.items()), *NO_PROMPTS]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported pair that no test changes."""
    return exported(tmp_path_factory.mktemp("shared"))


def test_the_best_pair_of_a_run_with_all_that_is_known_of_it(shared: Path) -> None:
    opened = read_pair(shared)
    record = opened.record
    assert (record.name, vars(record.environment.limits)) == ("my-pair", LIMITS)
    assert vars(record.environment.prompts.role_prompts) == {"long": "", "short": ""}
    assert record.origin is not None
    assert (record.origin.step, record.origin.chosen, record.origin.schedule) == (2, "best", ("long", "short"))
    assert record.origin.validation is not None
    assert record.origin.validation["accuracy"] == 0.75
    assert {path.name for path in shared.iterdir()} == {"long", "short", "pair.json", "README.md"}
    source = shared.parent / "pair/long/global_step_2/actor/huggingface"
    assert (shared / "long" / WEIGHTS).samefile(source / WEIGHTS)
    assert not (shared / "long/config.json").samefile(source / "config.json")
    # the short policy never learned: it is the model that the run began with
    assert (shared / "short" / WEIGHTS).samefile(shared.parent / "start/short" / WEIGHTS)
    for role in Role:
        AutoModelForCausalLM.from_pretrained(shared / role)
        assert json.loads((shared / role / "longshort_policy.json").read_text())["role"] == role
    # whole words cannot be stop strings: the tags are ends of sequence
    assert len(json.loads((shared / "short/generation_config.json").read_text())["eos_token_id"]) == 3


def test_nothing_names_a_path_of_this_machine(shared: Path) -> None:
    for file in shared.rglob("*"):
        if file.suffix in (".json", ".md", ".jinja"):
            assert str(shared.parent) not in file.read_text(), file
    assert read_pair(shared).record.roles.long.base == "long"


def test_the_card(tmp_path: Path) -> None:
    choose_best(write_run(tmp_path), 2)
    for name, mode in (("L1S1", "pair"), ("other", "pair"), ("long-CoT", "long_cot")):
        write_evaluation(tmp_path, name, mode=mode)
    (tmp_path / "run.json").write_text(json.dumps(a_record()))
    (tmp_path / "cold_start").mkdir()
    (tmp_path / "cold_start/card.md").write_text("# Cold start\n\n| chains | 7 |\n\n## Made with\n\n/secret\n")
    file = tmp_path / "results/L1S1.jsonl"
    header, *records = file.read_text().splitlines()
    folders = {"long": str(tmp_path / "pair/long/global_step_2/actor/huggingface"), "short": tmp_path / "start/short"}
    named = {**json.loads(header), "models": {role: [str(folder), []] for role, folder in folders.items()}}
    file.write_text("\n".join([json.dumps(named), *records]) + "\n")
    export(
        f"longshort.run={tmp_path / 'pair'}",
        f"longshort.output_dir={tmp_path / 'out'}",
        "longshort.license=apache-2.0",
        "longshort.datasets=[some/data]",
        "longshort.name='A: pair # one'",
    )
    card = (tmp_path / "out/README.md").read_text()
    _, front, body = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["license"] == "apache-2.0"
    assert metadata["datasets"] == ["some/data"]
    assert metadata["pipeline_tag"] == "text-generation"
    assert "base_model" not in metadata  # a folder of this machine is none of the hub
    for part in (
        *("# A: pair # one", "step 2 of 2 (rounds done: L1S1), the best of those", "| seed | 7 |"),
        *("accuracy 75.0 % [50.0, 90.0], 12.5 tokens", "9 problems (abc)", "## Cold start", "| chains | 7 |"),
        *("This pair is the row L1S1.", "AES relative to long-CoT", "| trained with |", "`max_turns` | 4"),
        *("longshort serve longshort.pair=", read_pair(tmp_path / "out").record.roles.long.weights[WEIGHTS].sha256),
    ):
        assert part in body, part
    assert "/secret" not in card
    assert "\n\n\n\n" not in card


def test_a_prompt_cannot_end_its_block() -> None:
    assert fenced("write ```\n# code") == "````text\nwrite ```\n# code\n````"


def a_record() -> dict[str, Any]:
    versions = {"python": "3.11", "verl": "0.9.1"}
    known = {"recipe": "/somewhere/tiny.yaml", "overrides": [], "settings": {"seed": 7}, "stages": {}}
    return {**known, "versions": versions, "machine": "", "started": "2026-01-02", "last_started": "2026-01-02"}


def test_without_a_validation_the_newest_checkpoint_is_taken(tmp_path: Path) -> None:
    store = write_run(tmp_path)
    export(f"longshort.run={store.root}", f"longshort.output_dir={tmp_path / 'a'}")
    export(f"longshort.run={store.root}", f"longshort.output_dir={tmp_path / 'b'}", "longshort.checkpoint=1")
    origins = [read_pair(tmp_path / name).record.origin for name in "ab"]
    assert [(one.step, one.chosen) for one in origins if one] == [(2, "latest"), (1, "step")]
    choose_best(store, 0)
    export(f"longshort.run={store.root}", f"longshort.output_dir={tmp_path / 'a'}")
    assert (tmp_path / "a/long" / WEIGHTS).samefile(tmp_path / "start/long" / WEIGHTS)


def test_the_start_of_a_run_is_exported_where_it_was_the_best(tmp_path: Path) -> None:
    choose_best(write_run(tmp_path), 0)
    export(f"longshort.run={tmp_path}", f"longshort.output_dir={tmp_path / 'out'}")
    origin = read_pair(tmp_path / "out").record.origin
    assert origin is not None
    assert (origin.step, origin.chosen) == (0, "best")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["longshort.run={root}/nowhere"], r"longshort\.run = .*nowhere: no such folder"),
        (["longshort.run={root}/start"], r"longshort\.run = .*holds no checkpoint of a pair"),
        (["longshort.run={root}", "longshort.checkpoint=7"], r"checkpoint = 7: .*give one of the steps 1, 2"),
        (["longshort.run={root}", "longshort.checkpoint=new"], "must be best, latest or the number of a step"),
        (["longshort.run={root}", "longshort.models.long=x"], r"models\.long = x: longshort\.run gives the models"),
        (["longshort.models.long={root}/start/long"], r"models\.short = None: is needed"),
        (["longshort.run={root}", "longshort.template=x"], r"longshort\.template = x: must hold"),
        (["longshort.run={root}", "longshort.output_dir={root}/start"], "holds something else than an exported pair"),
        (["longshort.run={root}", "longshort.evaluations={root}/x.jsonl"], r"evaluations = .*no such file"),
        (
            ["longshort.models.long={root}/start/long", "longshort.models.short={root}/start/short"],
            r"longshort\.environment\.max_turns = None: no record says",
        ),
    ],
)
def test_mistakes_are_one_line(shared: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    given = [override.format(root=shared.parent) for override in overrides]
    with pytest.raises(UserError, match=message):
        export(f"longshort.output_dir={tmp_path / 'out'}", *given)
    assert not (tmp_path / "out").exists()


def test_a_run_that_did_not_record_its_limits_is_asked_for_them(tmp_path: Path) -> None:
    write_run(tmp_path, environment=False)
    with pytest.raises(UserError, match=r"environment\.max_turns"):
        export(f"longshort.run={tmp_path}", f"longshort.output_dir={tmp_path / 'out'}")
    export(f"longshort.run={tmp_path}", f"longshort.output_dir={tmp_path / 'out'}", *GIVEN)
    assert vars(read_pair(tmp_path / "out").record.environment.limits) == LIMITS


def test_adapters_are_merged_and_kept(tmp_path: Path) -> None:
    write_run(tmp_path)
    starts = {role: tmp_path / "start" / role for role in Role}
    adapter = write_adapter(starts[Role.LONG], tmp_path / "adapter")
    folders = [f"longshort.models.long={adapter}", f"longshort.models.short={starts[Role.SHORT]}"]
    export(*folders, *GIVEN, f"longshort.output_dir={tmp_path / 'out'}")
    opened = read_pair(tmp_path / "out")
    assert (opened.record.roles.long.adapter, opened.record.roles.short.adapter) == ("adapters/long", None)
    expected = load_model(str(adapter)).state_dict()
    for folder in ("long", "adapters/long"):
        torch.testing.assert_close(load_model(str(tmp_path / "out" / folder)).state_dict(), expected, rtol=0, atol=0)
    assert not (tmp_path / "out/long/adapter_config.json").exists()
    assert "`adapters/long/`" in (tmp_path / "out/README.md").read_text()


def test_one_policy_in_both_roles_is_one_folder(tmp_path: Path) -> None:
    store = write_run(tmp_path, tied=True)
    export(f"longshort.run={store.root}", f"longshort.output_dir={tmp_path / 'out'}")
    opened = read_pair(tmp_path / "out")
    assert opened.models == dict.fromkeys(Role, str(tmp_path / "out/tied"))
    assert (opened.record.roles.long.stop, opened.record.roles.short.stop) == (
        ("</think>",),
        ("</answer>", "</rethink>"),
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"tied", "pair.json", "README.md"}
    assert json.loads((tmp_path / "out/tied/longshort_policy.json").read_text())["role"] == "both"
    assert (tmp_path / "out/tied" / WEIGHTS).samefile(store.root / f"tied/global_step_2/actor/huggingface/{WEIGHTS}")
    card = (tmp_path / "out/README.md").read_text()
    assert "A language model that solves problems in two roles" in card
    assert card.count(opened.record.roles.long.weights[WEIGHTS].sha256) == 1


def test_a_damaged_pair_is_one_line(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    weights = folder / "long" / WEIGHTS
    content = weights.read_bytes()
    weights.unlink()
    with pytest.raises(UserError, match=r"longshort\.pair = .*lacks long/model\.safetensors"):
        read_pair(folder)
    weights.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"long/model\.safetensors has \d+ bytes, and pair\.json says"):
        read_pair(folder)
    weights.write_bytes(content)
    file = folder / "pair.json"
    known = json.loads(file.read_text())
    for change, message in (
        (
            {"roles": {**known["roles"], "long": {**known["roles"]["long"], "folder": "../x"}}},
            "must be a folder beside",
        ),
        ({"longshort_pair": 2}, "has the format 2"),
        ({"template": 1}, r"pair\.json\.template = 1"),
    ):
        file.write_text(json.dumps({**known, **change}))
        with pytest.raises(UserError, match=message):
            read_pair(folder)
    file.write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_pair(folder)


def test_a_damaged_record_of_training_is_one_line(tmp_path: Path) -> None:
    store = write_run(tmp_path)
    (tmp_path / "start/long" / POLICY_FILE).write_text("{")
    with pytest.raises(UserError, match=r"start/long/longshort_policy\.json: is no JSON"):
        export(f"longshort.run={store.root}", f"longshort.output_dir={tmp_path / 'out'}")


def test_what_is_no_pair_is_told_apart(tmp_path: Path) -> None:
    store = write_run(tmp_path)
    for path, message in (
        (store.root, "is a training run: longshort export longshort.run="),
        (store.pair_folder(2), "is a checkpoint's own state"),
        (tmp_path / "start", "has no pair.json"),
    ):
        with pytest.raises(UserError, match=message):
            read_pair(path)


def test_eval_of_a_pair_file_is_that_of_its_folders(
    shared: Path,
    data: Path,  # noqa: F811
) -> None:
    """Models, limits and prompts come from the file, which so gives the very same records."""
    roles = {role.value: shared / role for role in Role}
    evaluate(pair("folders", data, roles, *GIVEN))
    common = [f"longshort.data={data}", f"longshort.output_dir={data.parent}"]
    evaluate(["longshort.name=file", *common, f"longshort.pair={shared / 'pair.json'}"])
    found = {}
    for name in ("folders", "file"):
        header, records = read_record_file(data.parent / f"{name}.jsonl")
        assert header["limits"] == LIMITS
        found[name] = {record["id"]: {**record, "seconds": 0} for record in records}
    assert found["file"] == found["folders"]


def test_what_is_given_counts_before_the_pair_and_models_may_not_be_given(shared: Path) -> None:
    common = ["longshort.name=a", "longshort.output_dir=o", f"longshort.pair={shared}"]
    settings = EvalStage().settings(overrides=[*common, "longshort.environment.max_turns=2", "longshort.data=x.jsonl"])
    assert vars(settings.limits) == {**LIMITS, "max_turns": 2}
    assert settings.prompts.long == ""
    for override, message in (
        (f"longshort.models.long={shared}/long", r"longshort\.models\.long = .*longshort\.pair=.* says it already"),
        ("longshort.mode=long_cot", r"longshort\.pair = .*the mode long_cot asks one model"),
    ):
        with pytest.raises(UserError, match=message):
            EvalStage().settings(overrides=[*common, override])


def test_behind_endpoints_the_pair_gives_tokenizers(shared: Path) -> None:
    urls = [f"longshort.endpoint.base_url.{role}=http://127.0.0.1:1/v1" for role in Role]
    named = [f"longshort.models.{role}=the-{role}" for role in Role]
    common = ["longshort.name=a", "longshort.output_dir=o", "longshort.data=x.jsonl", f"longshort.pair={shared}"]
    settings = EvalStage().settings(overrides=[*common, *urls, *named])
    assert settings.tokenizer_path("long") == str(shared / "long")
    assert settings.model_paths == {"long": "the-long", "short": "the-short"}
