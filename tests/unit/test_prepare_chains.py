"""Chains from files of the real schemas and from a model: only right ones, and nothing asked twice."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers.llm_server import Body, Endpoint, completion, failure, serve
from longshort_reward.errors import UserError

from verl_longshort.base.dry_run import VARIABLE, DryRun
from verl_longshort.base.rejected import RejectedError
from verl_longshort.base.requirements import Product
from verl_longshort.cli import main
from verl_longshort.data.chain_writers import chain_of, read_written, written_in_row
from verl_longshort.data.records import Chain, read_stage
from verl_longshort.problems import sources

NOUNS = ["apples", "bridges", "candles", "dragons", "engines", "falcons", "gardens", "hammers"]


def text(i: int) -> str:
    return f"{NOUNS[i % 8]} {i} {NOUNS[i // 8 % 8]} {i * i} of {i + 1}"


def omi_row(i: int, **changes: Any) -> dict[str, Any]:
    """The schema of OpenMathInstruct-2."""
    row = {
        "problem": text(i),
        "generated_solution": f"... $\\boxed{{{i}}}$",
        "expected_answer": str(i),
        "problem_source": "augmented_math" if i % 2 else "math",
    }
    return {**row, **changes}


def thinking(i: int, answer: int | None = None) -> str:
    box = f"\\boxed{{{i if answer is None else answer}}}"
    return f"<think>\nOkay, {text(i)}.\n\nWait, so it is {i}.\n</think>\n\nThe answer is {box}."


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(tmp_path):
    base = {
        "source": write(tmp_path / "omi.jsonl", [omi_row(i) for i in range(40)]),
        "held_out": "[]",
        "output": tmp_path / "chains.jsonl",
        "problems": 20,
    }

    def call(**changes: Any):
        overrides = {**base, **{key.replace("__", "."): value for key, value in changes.items()}}
        arguments = [f"longshort.{key}={value}" for key, value in overrides.items()]
        return CliRunner().invoke(main, ["prepare", "chains", *arguments])

    return call


def chains(tmp_path: Path) -> list[dict[str, Any]]:
    return [chain.to_record() for chain in read_stage(tmp_path / "chains.jsonl", Chain, key="test")]


def rejects(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "chains.rejects.jsonl").read_text().splitlines()]


def fails(result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line.strip()]
    assert len(lines) == 1, result.output
    for part in parts:
        assert part in lines[0]


# ---- from a file ---------------------------------------------------------------------------------


def test_chains_of_a_file_are_joined_by_the_problem(run, tmp_path):
    given = write(tmp_path / "r1.jsonl", [{"problem": text(i).upper(), "response": thinking(i)} for i in range(30)])
    result = run(chains=given)
    assert result.exit_code == 0, result.output
    made = chains(tmp_path)
    assert len(made) == 20
    number = int(made[0]["ground_truth"])
    assert made[0]["problem"] == text(number)
    assert made[0]["chain"].startswith(f"Okay, {text(number)}.")
    assert made[0]["chain"].endswith(f"The final answer is \\boxed{{{number}}}.")
    assert all(int(record["ground_truth"]) < 30 for record in made)
    card = json.loads((tmp_path / "chains.card.json").read_text())
    assert card["counts"] == {"held out": 0, "problems taken": 20, "chains": 20}
    run(chains=given)
    assert chains(tmp_path) == made


def test_wrong_cut_and_tagged_chains_are_left_out_with_the_reason(run, tmp_path):
    rows = [{"problem": text(i), "response": thinking(i)} for i in range(10)]
    rows[1]["response"] = thinking(1, answer=17)
    rows[2]["response"] = "<think>I could go on and"
    rows[3]["response"] = "<think>so </rethink> what</think>\\boxed{3}"
    run(chains=write(tmp_path / "r1.jsonl", rows))
    assert {record["ground_truth"] for record in chains(tmp_path)} == {"0", *"456789"}
    reasons = sorted(record["reason"] for record in rejects(tmp_path))
    assert reasons == ["a protocol tag in the chain", "the thinking does not end", "wrong final answer"]


def test_open_r1_rows_give_problems_and_the_first_right_chain(run, tmp_path):
    rows = [
        {
            "problem": text(i),
            "solution": "...",
            "answer": str(i),
            "problem_type": "Algebra",
            "uuid": f"u{i}",
            "is_reasoning_complete": [True, True],
            "generations": [thinking(i, answer=99), thinking(i)],
            "correctness_math_verify": [False, True],
            "messages": [{"role": "user", "content": text(i)}],
        }
        for i in range(8)
    ]
    path = tmp_path / "open_r1.parquet"
    pd.DataFrame(rows).to_parquet(path)
    assert run(source="null", chains=path).exit_code == 0
    made = chains(tmp_path)
    assert {record["ground_truth"] for record in made} == set("01234567")
    assert all("99" not in record["chain"] for record in made)
    assert made[0]["subject"] == "Algebra"


def test_kinds_and_held_out_limit_the_sample(run, tmp_path):
    given = write(tmp_path / "r1.jsonl", [{"problem": text(i), "response": thinking(i)} for i in range(40)])
    held = write(tmp_path / "val.jsonl", [{"prompt": [{"role": "user", "content": text(1)}]}])
    run(chains=given, kinds="[augmented_math]", held_out=f"[{held}]", problems=100)
    assert {int(record["ground_truth"]) for record in chains(tmp_path)} == set(range(3, 40, 2))


@pytest.mark.parametrize(
    "row",
    [
        {"chain": "so it is \\boxed{4}"},
        {"reasoning_content": "so it is 4", "content": "It is \\boxed{4}."},
        {"response": "so it is \\boxed{4}</think>\nIt is \\boxed{4}."},
        {"generations": ["<think>so it is \\boxed{4}</think>4"]},
        {
            "messages": [
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": "<think>so it is 4</think>\\boxed{4}"},
            ]
        },
        {
            "conversations": [
                {"from": "human", "value": "?"},
                {"from": "gpt", "value": "<think>so it is 4</think>\\boxed{4}"},
            ]
        },
        {"messages": [{"role": "assistant", "content": "\\boxed{4}", "reasoning_content": "so it is 4"}]},
    ],
)
def test_what_files_call_a_chain(row):
    (written,) = written_in_row(row, key="k", where="w")
    chain = chain_of(written)
    assert chain.startswith("so it is")
    assert "\\boxed{4}" in chain


def test_a_row_without_a_chain_is_named(run, tmp_path):
    bad = write(tmp_path / "r1.jsonl", [{"problem": text(0), "response": thinking(0)}, {"problem": text(1), "x": 1}])
    fails(run(chains=bad), "longshort.chains", "r1.jsonl, record 2", "reasoning_content")
    assert not (tmp_path / "chains.jsonl").exists()


def test_thinking_ends_at_the_last_tag():
    assert read_written("<think>a</think>b").reasoning == "a"
    assert read_written("a</think>b").reasoning == "a"
    assert read_written("<think>a").reasoning == ""
    with pytest.raises(RejectedError, match="does not end"):
        chain_of(read_written("no tags at all"))
    with pytest.raises(UserError, match="no chain under"):
        written_in_row({"problem": "?"}, key="k", where="w")


# ---- from a model --------------------------------------------------------------------------------


def number_of(body: Body) -> int:
    return next(i for i in range(40) if text(i) == body["messages"][0]["content"].split("\n\n")[0])


async def right(body: Body):
    return completion(thinking(number_of(body)).removeprefix("<think>\n"))


def ask(run, endpoint: Endpoint, **changes: Any):
    return run(llm__base_url=endpoint.url, llm__model="r1", llm__request_attempts=1, **changes)


def test_a_model_writes_chains_and_is_not_asked_twice(run, tmp_path):
    with serve(right) as endpoint:
        assert ask(run, endpoint).exit_code == 0
        made = chains(tmp_path)
        assert len(made) == len(endpoint.bodies) == 20
        body = endpoint.bodies[0]
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.6, 0.95, 16384)
        assert body["messages"][0]["content"].endswith("within \\boxed{}.")
        assert ask(run, endpoint, problems=25).exit_code == 0
        assert len(endpoint.bodies) == 25
    assert made == chains(tmp_path)[:20]


def test_reasoning_may_come_apart_from_the_answer(run, tmp_path):
    from fastapi.responses import JSONResponse

    async def apart(body: Body):
        i = number_of(body)
        message = {"content": f"\\boxed{{{i}}}", "reasoning_content": f"Wait, it is {i}."}
        return JSONResponse({"choices": [{"message": message, "finish_reason": "stop"}]})

    with serve(apart) as endpoint:
        assert ask(run, endpoint).exit_code == 0
    first = chains(tmp_path)[0]
    assert (
        first["chain"]
        == f"Wait, it is {first['ground_truth']}.\n\nThe final answer is \\boxed{{{first['ground_truth']}}}."
    )


def test_a_wrong_answer_is_asked_for_again_with_another_seed(run, tmp_path):
    async def wrong_at_first(body: Body):
        known = [b for b in endpoint.bodies if b["messages"] == body["messages"]]
        i = number_of(body)
        return completion(thinking(i, answer=77 if len(known) == 1 else i))

    with serve(wrong_at_first) as endpoint:
        assert ask(run, endpoint, problems=3).exit_code == 0
        assert len(endpoint.bodies) == 6
        assert len({body["seed"] for body in endpoint.bodies}) == 6
    assert len(chains(tmp_path)) == 3


def test_a_killed_run_goes_on(run, tmp_path):
    async def some(body: Body):
        return failure(503) if len(endpoint.bodies) > 5 else await right(body)

    with serve(some) as endpoint:
        assert ask(run, endpoint, llm__concurrency=1).exit_code == 1
        assert not (tmp_path / "chains.jsonl").exists()
    with serve(right) as endpoint:
        assert ask(run, endpoint).exit_code == 0
        assert len(endpoint.bodies) == 15
    assert len(chains(tmp_path)) == 20


def test_mistakes_are_one_line(run, tmp_path):
    fails(run(source="null"), "longshort.source")
    fails(run(), "longshort.llm.model", "is required")
    fails(run(problems=0, chains="x"), "longshort.problems")
    fails(run(chains=tmp_path / "none.jsonl"), "longshort.chains", "none.jsonl")
    other = write(tmp_path / "r1.jsonl", [{"problem": "another one", "response": thinking(1)}])
    fails(run(chains=other), "longshort.source", "no problem can be used")


def test_a_data_set_of_the_hub_is_sampled(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "hub_rows", lambda *asked: [omi_row(i) for i in range(30)])
    given = write(tmp_path / "r1.jsonl", [{"problem": text(i), "response": thinking(i)} for i in range(30)])
    assert run(source="nvidia/OpenMathInstruct-2@train_1M", chains=given, problems=5).exit_code == 0
    assert len(chains(tmp_path)) == 5


def test_a_dry_run_reads_nothing_and_tells_what_will_be(run, tmp_path, monkeypatch):
    dry = DryRun.prepare(tmp_path / "dry", products=[Product(path=str(tmp_path / "val.parquet"))], gpus_per_node=8)
    monkeypatch.setenv(VARIABLE, str(dry.folder))
    val = tmp_path / "val.parquet"
    known = {"llm__model": "owner/r1", "source": "owner/name", "held_out": f"[math500,{val}]"}
    assert run(**known).exit_code == 0
    (needs,) = dry.reported()
    assert needs.command == "prepare chains"
    assert needs.products[0].path == str(tmp_path / "chains.jsonl")
    assert (needs.work.records, needs.work.new_tokens) == (20, 16384)
    assert not (tmp_path / "chains.jsonl").exists()
    fails(run(**{**known, "held_out": "[none.jsonl]"}), "longshort.held_out", "none.jsonl")


def test_a_dry_run_reads_the_files_that_are_there(run, tmp_path, monkeypatch):
    given = write(tmp_path / "r1.jsonl", [{"problem": text(i), "response": thinking(i)} for i in range(7)])
    bare = write(tmp_path / "bare.jsonl", [{"problem": text(1)}])
    other = write(tmp_path / "other.jsonl", [{"problem": "another one", "response": thinking(1)}])
    dry = DryRun.prepare(tmp_path / "dry", products=[], gpus_per_node=8)
    monkeypatch.setenv(VARIABLE, str(dry.folder))
    assert run(chains=given).exit_code == 0
    assert dry.reported()[0].products[0].records == 7
    fails(run(chains=bare), "longshort.chains", "has no chain under")
    fails(run(chains=other), "longshort.source", "no problem can be used")
    fails(run(chains=bare, source="owner/name"), "longshort.chains", "has no chain under")
