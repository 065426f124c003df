"""Every row and every prompt of a run is looked at before it starts, with every model's tokenizer."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.no_collection import no_collection
from helpers.tiny_tokenizers import CHAT_ML, byte_level, normalising
from longshort_reward.errors import UserError
from longshort_reward.protocol import TAGS
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedTokenizerFast

from verl_longshort.engines.tokenizers import check_generation_config
from verl_longshort.problems.reader import RowError
from verl_longshort.problems.verl_rows import check_row, plain_row
from verl_longshort.verl_plugin.checks.data_checks import check_data
from verl_longshort.verl_plugin.checks.prompts import PromptMaker
from verl_longshort.verl_plugin.launch import DATA_SET
from verl_longshort.verl_plugin.trainer.dataset import ProblemDataset

PROMPT_KEY = "longshort.environment.prompts.{role}"


def row(index: int, problem: Any = "?", **more: Any) -> dict[str, Any]:
    return {
        "data_source": "t",
        "prompt": [{"role": "user", "content": problem}],
        "reward_model": {"style": "rule", "ground_truth": "1"},
        "extra_info": {"index": index},
        **more,
    }


def model(folder: Path, tokenizer: PreTrainedTokenizerFast, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save_pretrained(folder)
    return folder


def maker(folder: Path, role: str = "long", **more: Any) -> PromptMaker:
    key = f"longshort.policies.{role}.actor_rollout_ref.model.path"
    return PromptMaker(**{"role": role, "key": key, "path": str(folder), "system": "Think.", **more})


def config(train: Any, val: Any = None, **more: Any) -> DictConfig:
    data = {
        "train_files": train,
        "val_files": val or train,
        "train_batch_size": 2,
        "gen_batch_size": None,
        "max_prompt_length": 64,
        "train_max_samples": -1,
        "val_max_samples": -1,
        "filter_overlong_prompts": False,
        **more,
    }
    return OmegaConf.create({"data": data})


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


def checked(settings: DictConfig, *makers: PromptMaker) -> list[str]:
    return check_data(settings, makers, agent_loop="longshort", prompt_key=PROMPT_KEY)


def refused(settings: DictConfig, *makers: PromptMaker) -> str:
    with pytest.raises(UserError) as error:
        checked(settings, *makers)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- prompts that are too long


@pytest.fixture
def makers(tmp_path: Path) -> list[PromptMaker]:
    """Two models whose tokenizers cut the same text differently."""
    folders = {"long": model(tmp_path / "long", byte_level()), "short": model(tmp_path / "short", normalising())}
    return [maker(folder, role) for role, folder in folders.items()]


def test_prompts_that_do_not_fit_are_named_with_the_value_to_set(tmp_path: Path, makers: list[PromptMaker]) -> None:
    problems = ["1 + 1", "é" * 50, "2 + 2", "x" * 200, "y" * 100, "z" * 90]
    train = write(tmp_path / "train.jsonl", [row(i, problem) for i, problem in enumerate(problems)])
    val = write(tmp_path / "val.jsonl", [row(0, "3 + 3")])
    line = refused(config(train, val), *makers)
    longest = max(one.tokens("x" * 200) for one in makers)
    assert line.startswith("data.max_prompt_length = 64: with system message and chat template, 4 of 6 prompts of ")
    for words in (
        "train.jsonl, record 2: ",
        "record 4: ",
        f"set {longest} for all",
        "data.filter_overlong_prompts=true",
    ):
        assert words in line
    assert "record 6" not in line
    assert checked(config(train, val, max_prompt_length=longest), *makers) == []


def test_the_count_is_that_of_the_prompts_that_are_made(makers: list[PromptMaker]) -> None:
    problems = [letter * count for letter in ("a", "é", "ﷺ", "1 ", "Ω→") for count in range(0, 60, 3)]
    for one in makers:
        for limit in (24, 40, 64):
            exact = {at: n for at, problem in enumerate(problems) if (n := one.tokens(problem)) > limit}
            assert one.overlong(problems, limit, what="") == exact


def test_one_role_alone_may_have_too_long_prompts(tmp_path: Path, makers: list[PromptMaker]) -> None:
    long, short = makers
    train = write(tmp_path / "train.jsonl", [row(i, f"{i}") for i in range(4)])
    wordy = maker(Path(short.path), "short", system="think " * 30)
    assert "4 of 4 prompts" in (line := refused(config(train), long, wordy))
    assert "(short)" in line
    assert "(long)" not in line


def test_left_out_on_request_by_the_data_set_of_the_run(tmp_path: Path, makers: list[PromptMaker]) -> None:
    rows = [row(i, "x" * length) for i, length in enumerate((5, 200, 6, 300, 7))]
    train, val = write(tmp_path / "train.jsonl", rows), write(tmp_path / "val.jsonl", [row(0, "3 + 3")])
    settings = config(train, val, filter_overlong_prompts=True)
    (note,) = checked(settings, *makers)
    assert "2 of 5 prompts of data.train_files" in note
    assert refused(config(train, val, filter_overlong_prompts=True, train_batch_size=4), *makers).startswith(
        "data.train_batch_size = 4: must be from 1 to the number of problems, 3"
    )
    settings.data.prompt_makers = [asdict(one) for one in makers]
    kept = ProblemDataset(data_files=train, tokenizer=makers[0].tokenizer, config=settings.data)
    assert [kept[at]["extra_info"]["index"] for at in range(len(kept))] == [0, 2, 4]


def test_the_longest_problems_of_many_are_found_in_seconds(tmp_path: Path, makers: list[PromptMaker]) -> None:
    problems = [f"start {i} ; step {i % 7} ? " * 4 for i in range(20_000)] + ["x" * 3000]
    with no_collection():
        begin = time.process_time()
        found = makers[0].overlong(problems, 1024, what="")
        assert list(found) == [20_000]
        assert time.process_time() - begin < 2


def words_alone() -> PreTrainedTokenizerFast:
    """A tokenizer that knows its own words only, and has no token for others."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    made = Tokenizer(WordLevel({word: at for at, word in enumerate(["<eos>", *TAGS, "start", "step", "1", "2"])}))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", chat_template=DROPS)


def test_a_tokenizer_of_few_words(tmp_path: Path) -> None:
    folder = model(tmp_path / "words", words_alone())
    train = write(tmp_path / "train.jsonl", [row(i, f"start {i}") for i in (1, 2)])
    val = write(tmp_path / "val.jsonl", [row(0, "step 1")])
    assert checked(config(train, val, max_prompt_length=4), maker(folder, system="")) == []
    other = write(tmp_path / "other.jsonl", [row(0, "start"), row(1, "begin")])
    line = refused(config(other, val, max_prompt_length=4), maker(folder, system=""))
    assert "cannot write the problem 'begin'" in line


# ---------------------------------------------------------------- what a tokenizer must be able to do


def changed(tokenizer: PreTrainedTokenizerFast, **attributes: Any) -> PreTrainedTokenizerFast:
    import copy

    made = copy.deepcopy(tokenizer)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DROPS = "{% for message in messages if message['role'] == 'user' %}{{ message['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("attributes", "vocabulary", "words"),
    [
        ({"chat_template": None}, 320, ("has no chat template", "custom_chat_template")),
        (
            {"chat_template": REFUSES + CHAT_ML},
            320,
            ("refuses a system message (System role not supported)", "longshort.environment.prompts.long=''"),
        ),
        ({"chat_template": DROPS}, 320, ("leaves the system message out", "longshort.environment.prompts.long=''")),
        ({"chat_template": "{{ undefined.name }}"}, 320, ("cannot write a prompt",)),
        ({"chat_template": "{{ messages[0]['content'] }}"}, 320, ("leaves the problem out",)),
        ({"eos_token": None}, 320, ("has no end token", "eos_token")),
        ({}, 200, ("as id", "the model has the ids up to 199")),
        ({"eos_token": "<end>"}, 320, ("'<end>' (its end token)", "up to 319")),
        ({"pad_token": "<pad>"}, 320, ("'<pad>' (its padding token)",)),
    ],
)
def test_a_tokenizer_that_cannot_be_used(
    tmp_path: Path, attributes: dict[str, Any], vocabulary: int, words: tuple[str, ...]
) -> None:
    made = changed(byte_level())
    new = [v for name, v in attributes.items() if name in ("eos_token", "pad_token") and v]
    made.add_special_tokens({"additional_special_tokens": new}) if new else None
    folder = model(tmp_path / "m", changed(made, **attributes), vocab_size=vocabulary)
    line = refused(config(write(tmp_path / "t.jsonl", [row(i) for i in range(2)])), maker(folder))
    assert line.startswith(f"longshort.policies.long.actor_rollout_ref.model.path = {folder}: ")
    for word in words:
        assert word in line


def test_without_a_system_message_a_template_may_refuse_it(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", changed(byte_level(), chat_template=REFUSES + CHAT_ML))
    train = write(tmp_path / "t.jsonl", [row(i, f"{i}") for i in range(2)])
    val = write(tmp_path / "v.jsonl", [row(0, "x")])
    assert checked(config(train, val), maker(folder, system="")) == []
    assert checked(config(train, val), maker(folder, chat_template=CHAT_ML)) == []


@pytest.mark.parametrize("damage", ["tokenizer.json", None])
def test_a_tokenizer_that_cannot_be_loaded(tmp_path: Path, damage: str | None) -> None:
    folder = model(tmp_path / "m", byte_level())
    if damage:
        (folder / damage).write_text("{")
    else:
        for file in folder.glob("*token*"):
            file.unlink()
    assert "its tokenizer cannot be loaded" in refused(
        config(write(tmp_path / "t.jsonl", [row(0), row(1)])), maker(folder)
    )


def test_code_of_the_models_own_is_asked_for(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", byte_level())
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    own = {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    file.write_text(json.dumps(settings | own))
    (folder / "own.py").write_text(
        "from transformers import PreTrainedTokenizerFast\nclass Own(PreTrainedTokenizerFast): pass\n"
    )
    train = write(tmp_path / "t.jsonl", [row(i, f"{i}") for i in range(2)])
    val = write(tmp_path / "v.jsonl", [row(0, "x")])
    assert "actor_rollout_ref.model.trust_remote_code=true" in refused(config(train, val), maker(folder))
    assert checked(config(train, val), maker(folder, trust_remote_code=True)) == []


def test_another_end_than_the_models_is_said(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", byte_level(), eos_token_id=7)
    train = write(tmp_path / "t.jsonl", [row(i, f"{i}") for i in range(2)])
    val = write(tmp_path / "v.jsonl", [row(0, "x")])
    (note,) = checked(config(train, val), maker(folder))
    assert "the tokenizer ends with '<|im_end|>' and the model with" in note
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, byte_level().eos_token_id]}))
    assert checked(config(train, val), maker(folder)) == []


# ---------------------------------------------------------------- rows


WAYS = {
    "parts": {"prompt": [{"role": "user", "content": [{"type": "text", "text": "1 + 1"}]}]},
    "json prompt": {"prompt": json.dumps([{"role": "user", "content": "1 + 1"}])},
    "json answer": {"reward_model": json.dumps({"ground_truth": "1"})},
    "json extra": {"extra_info": json.dumps({"index": 5})},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_every_way_to_write_a_row_reaches_the_agent_loop(
    tmp_path: Path, makers: list[PromptMaker], way: str, suffix: str
) -> None:
    rows = [row(5, "1 + 1", **WAYS[way]) for _ in range(2)]
    train = write(tmp_path / f"train{suffix}", rows)
    settings = config(train)
    checked(settings, *makers)
    data = ProblemDataset(data_files=train, tokenizer=makers[0].tokenizer, config=settings.data)
    sample = data[1]
    assert sample["raw_prompt"] == [{"role": "user", "content": "1 + 1"}]
    assert sample["reward_model"]["ground_truth"] == "1"
    assert (sample["index"], sample["extra_info"]["index"]) == (5, 5)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"prompt": "1 + 1"}, "needs prompt = [{role: user, content}]"),
        ({"prompt": "[{"}, "a text in prompt that begins like JSON"),
        ({"reward_model": "1"}, "needs a mapping as reward_model, and has '1'"),
        ({"reward_model": {"ground_truth": ""}}, "reward_model.ground_truth"),
        ({"reward_model": {"ground_truth": "  "}}, "reward_model.ground_truth"),
        ({"extra_info": {"index": None}}, "lacks extra_info.index"),
        ({"extra_info": [1]}, "needs a mapping as extra_info"),
        ({"images": [b"x"]}, "has images"),
        ({"agent_name": "tool_agent"}, "names the agent loop tool_agent"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    rows = [row(0), row(1), row(2, **more)]
    if more.get("images"):
        with pytest.raises(RowError, match=words):
            check_row(rows[2])
        return
    line = refused(config(write(tmp_path / "train.jsonl", rows)))
    assert line.startswith(f"data.train_files = {tmp_path}/train.jsonl: record 3 ")
    assert words in line


def test_a_plain_row_is_left_alone() -> None:
    assert plain_row(row(3, "1 + 1", other=2)) == row(3, "1 + 1", other=2)


def test_files_that_verls_data_set_cannot_hold(tmp_path: Path) -> None:
    mixed = write(tmp_path / "mixed.jsonl", [row(0), row(1, extra_info={"index": "one"})])
    assert "its columns mix types" in refused(config(mixed))
    table = tmp_path / "table.csv"
    table.write_text("data_source,prompt,reward_model,extra_info\n")
    assert "verl's data set reads .parquet, .json, .jsonl" in refused(config(str(table)))
    (tmp_path / "a[1]").mkdir()
    assert "takes the character [ for a pattern" in refused(config(write(tmp_path / "a[1]/t.jsonl", [row(0)])))
    one = write(tmp_path / "one.parquet", [row(0)])
    two = write(tmp_path / "two.parquet", [row(1, extra_info={"index": 1, "level": 2})])
    line = refused(config([one, two]))
    assert f"{two}: its column extra_info has other fields or types than that of {one}" in line
    assert checked(config([one, one], one)) != []


def test_batches_that_cannot_be_drawn(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [row(i, f"{i}") for i in range(4)])
    assert "data.train_batch_size = 4: must be from 1 to the number of problems, 3" in refused(
        config(train, train_batch_size=4, train_max_samples=3)
    )
    assert "data.gen_batch_size = 3: must divide data.train_batch_size, 4" in refused(
        config(train, train_batch_size=4, gen_batch_size=3)
    )


def test_repeated_problems_are_said(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [row(0, "a"), row(1, "b"), row(2, "a")])
    val = write(tmp_path / "val.jsonl", [row(0, "b"), row(1, "c")])
    again, shared = checked(config(train, val))
    assert again == "1 of the 3 problems of data.train_files are there more than once"
    assert shared.startswith("1 problems of data.val_files are also in data.train_files")


def test_verl_takes_the_data_set_that_the_launcher_names() -> None:
    from verl.utils.dataset.rl_dataset import get_dataset_class

    assert get_dataset_class(OmegaConf.create({"custom_cls": DATA_SET})) is ProblemDataset


# ---------------------------------------------------------------- what is saved with a model


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"top_p": 0.8}', ("do_sample", "top_p", "correct it in")),
        ('{"temperature": 0.6, "do_sample": false}', ("temperature",)),
        ('{"max_new_tokens": 0}', ("max_new_tokens",)),
        ('{"pad_token_id": -1}', ("pad_token_id",)),
        ("{", ("is damaged",)),
    ],
)
def test_sampling_settings_that_could_not_be_saved_after_training(
    tmp_path: Path, content: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model(tmp_path / "m", byte_level())
    check_generation_config(str(folder), key="model")
    (folder / "generation_config.json").write_text('{"top_p": 0.8, "do_sample": true, "eos_token_id": [1, 2]}')
    check_generation_config(str(folder), key="model")
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(UserError) as error:
        check_generation_config(str(folder), key="model")
    line = str(error.value)
    assert line.startswith(f"model = {folder}: ")
    assert "\n" not in line
    for word in ("generation_config.json", *words):
        assert word in line
    assert capsys.readouterr().err == ""
