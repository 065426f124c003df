"""The stage `coldstart`: weighed thoughts to joint trajectories, by labels and by a model behind a server."""

import io
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from helpers.llm_server import Body, Endpoint, completion, serve
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role, parse_trajectory, parse_turn
from rich.console import Console

from verl_longshort.base.stage import execute
from verl_longshort.data.gaps import Gap, as_turns, fill_gaps, find_gaps, rewrite_messages
from verl_longshort.data.records import Selected, load_trajectories
from verl_longshort.data.synthesis import in_val
from verl_longshort.stages.coldstart import ColdStartStage
from verl_longshort.world.make_world import chain_record
from verl_longshort.world.tiny_tokenizer import build_tokenizer
from verl_longshort.world.world import Split, generate_problems

WORLD_KEPT = ("restate", "hard")


def run(*overrides: str) -> str:
    shown = io.StringIO()
    execute(ColdStartStage(), Console(file=shown, width=100), overrides=overrides)
    return shown.getvalue()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def weighed(record: dict[str, Any], keep: list[bool], tokenizer: Path) -> dict[str, Any]:
    """The record as `weigh` would write it, with flags; every rollout is right."""
    numbers = {"right": 4, "samples": 4, "p": 1.0, "p_low": 0.5, "p_high": 1.0}
    numbers |= {"m": 0.1, "delta": 0.25, "bound": 0.8, "flip": 0.1}
    thoughts = [
        {"text": t["text"], "kind": t["kind"], "tokens": len(t["text"].split()), **numbers, "keep": kept}
        for t, kept in zip(record["thoughts"], keep, strict=True)
    ]
    known = {
        "p_start": {"right": 1, "samples": 4},
        "tokenizer": str(tokenizer),
        "model": "m",
        "rule": "truth",
    }
    return {"separator": " ", **record, "labels": record["thoughts"], **known, "thoughts": thoughts}


def world_records(tokenizer: Path, count: int = 60) -> list[dict[str, Any]]:
    rng = random.Random(0)
    records = []
    for number, problem in enumerate(generate_problems(seed=2, count=count, split=Split.TRAIN)):
        record = {"id": str(number), **chain_record(problem, rng)}
        keep = [thought["kind"] in WORLD_KEPT for thought in record["thoughts"]]
        records.append(weighed(record, keep, tokenizer))
    return records


def overrides(source: Path, *more: str) -> list[str]:
    folder = source.parent / "out"
    return [f"longshort.input={source}", f"longshort.output_dir={folder}", "longshort.rule=null", *more]


def said(trajectory: dict[str, Any], role: Role) -> str:
    """All that a role says, without tags."""
    turns = [parse_turn(role, turn["text"]) for turn in trajectory["turns"] if turn["role"] == role]
    return " ".join(turn.body.strip() for turn in turns)


LABELS = "longshort.rewrite=labels"


def test_the_worlds_truth_gives_the_worlds_trajectories(tmp_path: Path, tokenizer: Path) -> None:
    records = world_records(tokenizer)
    shown = run(*overrides(write(tmp_path / "selected.jsonl", records), LABELS))
    made = read(tmp_path / "out" / "train.jsonl") + read(tmp_path / "out" / "val.jsonl")
    assert len(made) == 60
    by_id = {record["id"]: record for record in records}
    for trajectory in made:
        record = by_id[trajectory["id"]]
        pairs = list(zip(record["thoughts"], record["labels"], strict=True))
        kept = [thought["text"] for thought, _ in pairs if thought["keep"]]
        rest = [label["concise"] for thought, label in pairs if not thought["keep"] and label["concise"]]
        assert said(trajectory, Role.LONG) == " ".join(kept)
        assert said(trajectory, Role.SHORT) == " ".join(rest)
    assert all(load_trajectories(tmp_path / "out" / "train.jsonl", role) for role in ROLES)
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["trajectories"]["train"] + card["trajectories"]["val"] == card["input"]["records"] == 60
    assert card["dropped"] == {}
    assert card["means"]["long_tokens"] < card["means"]["chain_tokens"]
    assert re.search(r"records read +60", shown)
    assert "| records read | 60 |" in (tmp_path / "out" / "card.md").read_text()


def test_the_split_goes_by_problem(tmp_path: Path, tokenizer: Path) -> None:
    source = write(tmp_path / "selected.jsonl", world_records(tokenizer))
    run(*overrides(source, LABELS, "longshort.val_percent=30"))
    val = {record["problem"] for record in read(tmp_path / "out" / "val.jsonl")}
    train = {record["problem"] for record in read(tmp_path / "out" / "train.jsonl")}
    assert 8 <= len(val) <= 28
    assert all(in_val(problem, 30) for problem in val)
    assert not any(in_val(problem, 30) for problem in train)


def test_a_rule_chooses(tmp_path: Path, tokenizer: Path) -> None:
    source = write(tmp_path / "weighed.jsonl", world_records(tokenizer, 10))
    run(*overrides(source, LABELS, "longshort.rule=prefix-k", "+longshort.rule_options.k=2"))
    made = read(tmp_path / "out" / "train.jsonl")
    assert {(tuple(record["kept"]), record["rule"]) for record in made} == {((0, 1), "prefix-k")}
    with pytest.raises(UserError, match="rule = n: must be one of"):
        run(*overrides(source, LABELS, "longshort.rule=n"))


def broken(tokenizer: Path) -> dict[str, dict[str, Any]]:
    good = world_records(tokenizer, 1)[0]
    wrong = {**good, "ground_truth": str((int(good["ground_truth"]) + 1) % 10)}
    tagged_label = {**good["labels"][0], "text": good["labels"][0]["text"] + " <think>"}
    thoughts = [{**good["thoughts"][0], "text": tagged_label["text"]}, *good["thoughts"][1:]]
    tagged = {**good, "thoughts": thoughts, "labels": [tagged_label, *good["labels"][1:]]}
    tagged["chain"] = " ".join(thought["text"] for thought in thoughts)
    false_end = {**good["labels"][-1], "concise": "\\boxed{ nothing }"}
    return {
        "wrong final answer": wrong,
        "a protocol tag in the chain": tagged,
        "the rewritten solution misses the answer": {**good, "labels": [*good["labels"][:-1], false_end]},
        "thoughts do not match the labels": {**good, "labels": good["labels"][1:]},
        "nothing short at the end": {
            **good,
            "labels": [{**label, "concise": ""} for label in good["labels"]],
        },
    }


def test_what_cannot_be_used_is_dropped_with_its_reason(tmp_path: Path, tokenizer: Path) -> None:
    bad = broken(tokenizer)
    records = [{**record, "id": reason} for reason, record in bad.items()]
    source = write(tmp_path / "selected.jsonl", [*records, world_records(tokenizer, 1)[0]])
    shown = run(*overrides(source, LABELS))
    dropped = read(tmp_path / "out" / "dropped.jsonl")
    assert [record["reason"] for record in dropped] == [record["id"] for record in dropped] == list(bad)
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["dropped"] == dict.fromkeys(bad, 1)
    assert re.search(r"dropped: wrong final answer +1", shown)


TOO_LONG = {
    "max_turns=2": "too many turns",
    "long_turn_tokens=20": "too many tokens in a long turn",
    "short_turn_tokens=8": "too many tokens in a short turn",
    "token_budget=60": "too many tokens",
}


@pytest.mark.parametrize(("limit", "reason"), TOO_LONG.items(), ids=TOO_LONG.keys())
def test_what_is_too_long_is_dropped(tmp_path: Path, tokenizer: Path, limit: str, reason: str) -> None:
    source = write(tmp_path / "selected.jsonl", world_records(tokenizer, 40))
    run(*overrides(source, LABELS, f"longshort.environment.{limit}"))
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert set(card["dropped"]) == {reason}
    assert 0 < card["dropped"][reason] < 40


def test_nothing_left_is_an_error(tmp_path: Path, tokenizer: Path) -> None:
    bad = broken(tokenizer)["wrong final answer"]
    with pytest.raises(UserError, match="no record gave a trajectory; the first one, 0: wrong final answer"):
        run(*overrides(write(tmp_path / "selected.jsonl", [bad]), LABELS))
    assert len(read(tmp_path / "out" / "dropped.jsonl")) == 1


PROSE = ("We want 2x.", "Choose x = 3, since $\\frac{6}{2} = 3$.", "Wait, is it?", "So 6.")


def prose_records(tokenizer: Path) -> list[dict[str, Any]]:
    record = {
        "problem": "What is twice x?",
        "ground_truth": "6",
        "chain": "\n\n".join([*PROSE[:3], "So \\boxed{6}."]),
        "separator": "\n\n",
        "thoughts": [
            {"text": text, "kind": kind}
            for text, kind in zip([*PROSE[:3], "So \\boxed{6}."], ["plan", "step", "check", "conclude"], strict=True)
        ],
    }
    choices = ([True, False, True, False], [True, True, False, True], [False, False, False, False])
    return [weighed({**record, "id": f"p{k}"}, list(keep), tokenizer) for k, keep in enumerate(choices)]


def by_model(source: Path, endpoint: Endpoint, byte_level_folder: Path) -> list[str]:
    llm = [f"longshort.llm.base_url={endpoint.url}", "longshort.llm.model=tiny", "longshort.llm.attempts=2"]
    return overrides(source, f"longshort.tokenizer={byte_level_folder}", "longshort.val_percent=0", *llm)


@pytest.fixture(scope="module")
def bytes_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from helpers.tiny_tokenizers import byte_level

    folder = tmp_path_factory.mktemp("bytes")
    byte_level().save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def gaps_asked_about(body: Body) -> list[str]:
    solution = body["messages"][0]["content"].rpartition("SOLUTION\n")[2]
    return re.findall(r"\[GAP \d+: (.*)\]", solution)


async def fill(body: Body) -> Response:
    count = len(gaps_asked_about(body))
    texts = [f"short {number}" for number in range(1, count)] + [r"so \boxed{6}"]
    return completion(json.dumps([{"gap": k, "text": text} for k, text in enumerate(texts, start=1)]))


def test_a_model_fills_all_gaps_of_a_record_at_once(tmp_path: Path, tokenizer: Path, bytes_tokenizer: Path) -> None:
    source = write(tmp_path / "selected.jsonl", prose_records(tokenizer))
    with serve(fill) as endpoint:
        run(*by_model(source, endpoint, bytes_tokenizer))
        first = (tmp_path / "out" / "train.jsonl").read_text()
        shown = run(*by_model(source, endpoint, bytes_tokenizer))
    assert len(endpoint.bodies) == 3
    assert re.search(r"requests to the model +0", shown)
    assert (tmp_path / "out" / "train.jsonl").read_text() == first
    turns = [[turn["text"] for turn in record["turns"]] for record in map(json.loads, first.splitlines())]
    assert turns[0] == [
        "<think> We want 2x. </think>",
        "<answer> short 1 </rethink>",
        "<think> Wait, is it? </think>",
        "<answer> so \\boxed{6} </answer>",
    ]
    assert turns[1] == [
        f"<think> {PROSE[0]}\n\n{PROSE[1]} </think>",
        "<answer> short 1 </rethink>",
        "<think> So \\boxed{6}. </think>",
        "<answer> so \\boxed{6} </answer>",
    ]
    assert sorted(gaps_asked_about(body) for body in endpoint.bodies) == [
        ["check", "final answer"],
        ["step", "conclude"],
        ["step, check, conclude"],
    ]


def test_the_model_sees_what_stays_and_only_the_kind_of_the_rest(tokenizer: Path) -> None:
    record = Selected.model_validate(prose_records(tokenizer)[0])
    keep = [True, False, True, False]
    (message,) = rewrite_messages(record, keep, find_gaps(keep))
    solution = message["content"].rpartition("SOLUTION\n")[2]
    assert solution == "We want 2x.\n\n[GAP 1: step]\n\nWait, is it?\n\n[GAP 2: conclude]"
    assert "frac{6}{2} = 3$, since" not in message["content"]


def test_a_model_that_answers_wrong_is_dropped(tmp_path: Path, tokenizer: Path, bytes_tokenizer: Path) -> None:
    async def respond(body: Body) -> Response:
        if len(gaps_asked_about(body)) == 1:
            return completion(json.dumps([{"gap": 1, "text": "\\boxed{7}"}]))
        return await fill(body) if "We want 2x.\n\n[GAP" in body["messages"][0]["content"] else completion("no")

    source = write(tmp_path / "selected.jsonl", prose_records(tokenizer))
    with serve(respond) as endpoint:
        run(*by_model(source, endpoint, bytes_tokenizer))
    assert [(record["id"], record["reason"]) for record in read(tmp_path / "out" / "dropped.jsonl")] == [
        ("p1", "no reply that can be used"),
        ("p2", "the rewritten solution misses the answer"),
    ]


@given(st.lists(st.booleans(), max_size=8), st.data())
def test_gaps_and_kept_thoughts_make_the_whole(rest: list[bool], data: st.DataObject) -> None:
    keep = [True, *rest]
    gaps = find_gaps(keep)
    covered = [k for gap in gaps for k in gap.indexes]
    assert covered == [k for k, kept in enumerate(keep) if not kept]
    texts = [f"t{k}" for k in range(len(keep))]
    fillings = [data.draw(st.sampled_from(["", f"g{k}"])) for k in range(len(gaps) - 1)] + ["end"]
    turns = as_turns(fill_gaps(texts, keep, fillings, separator="\n\n"))
    assert [turn.role for turn in turns] == ["long", "short"] * (len(turns) // 2)
    assert all(parse_turn(turn.role, turn.text).ok for turn in turns)
    joint = " ".join(turn.text for turn in turns)
    assert [turn.text for turn in parse_trajectory(joint)] == [turn.text for turn in turns]
    words = re.findall(r"[tg]\d+", joint)
    assert sorted(words) == sorted(
        [t for t, kept in zip(texts, keep, strict=True) if kept] + [f for f in fillings[:-1] if f]
    )


def test_long_must_begin_and_short_must_end() -> None:
    assert find_gaps([True]) == [Gap(first=1, last=0)]
    with pytest.raises(ValueError, match="first thought must stay long"):
        find_gaps([False, True])
    with pytest.raises(ValueError, match="long must begin and short end"):
        as_turns([(Role.LONG, "a")])


def test_a_record_without_its_numbers_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    records = world_records(tokenizer, 2)
    del records[1]["thoughts"][0]["keep"]
    source = write(tmp_path / "selected.jsonl", records)
    with pytest.raises(UserError, match=r"selected\.jsonl, line 2: thoughts\[0\]\.keep: Field required"):
        run(*overrides(source, LABELS))


MISTAKES = {
    "longshort.val_percent=100": "longshort.val_percent = 100: must be a number from 0 to below 100",
    "longshort.answer_timeout_s=soon": "longshort.answer_timeout_s = soon: must be a number of seconds",
    "longshort.rewrite=me": "longshort.rewrite = me: must be one of llm, labels",
    "longshort.rewrite=llm": "longshort.llm.model = None: is required",
    "longshort.tokenizer=no/where/at/all": "longshort.tokenizer = no/where/at/all: no such folder",
    "longshort.environment.max_turns=1": "longshort.environment.max_turns = 1: set a whole number of 2",
}


@pytest.mark.parametrize(("override", "message"), MISTAKES.items(), ids=MISTAKES.keys())
def test_mistakes_are_named(tmp_path: Path, tokenizer: Path, override: str, message: str) -> None:
    source = write(tmp_path / "selected.jsonl", world_records(tokenizer, 1))
    with pytest.raises(UserError) as caught:
        run(*overrides(source, LABELS, override))
    assert message in str(caught.value)
