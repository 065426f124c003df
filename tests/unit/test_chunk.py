"""The stage `chunk`: the miniature world by rules, other chains by a model behind a real server."""

import asyncio
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from helpers.engines import build_model
from helpers.llm_server import Body, Endpoint, completion, failure, serve
from helpers.tiny_tokenizers import word_level
from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.errors import UnavailableError
from verl_longshort.base.rejected import RejectedError
from verl_longshort.base.stage import execute
from verl_longshort.data.chunkers import CHUNKERS, ChunkerSpec
from verl_longshort.data.gaps import concise_forms
from verl_longshort.data.records import Chain, Chunked, read_stage
from verl_longshort.data.steps import Block, Steps
from verl_longshort.stages.chunk import ChunkStage
from verl_longshort.world.make_world import chain_record
from verl_longshort.world.world import Split, generate_problems

PARAGRAPHS = ("Let x be 2.", "So x + 1 = 3.", "Wait, is x 2?", "Yes.", "The answer is 3.")


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(*overrides: str) -> str:
    shown = io.StringIO()
    execute(ChunkStage(), Console(file=shown, width=100), overrides=overrides)
    return shown.getvalue()


@pytest.fixture
def chains(tmp_path: Path) -> Path:
    records = [
        {
            "id": f"r{k}",
            "problem": f"What is {k}?",
            "ground_truth": 3,
            "chain": "\n\n".join(PARAGRAPHS[: k + 1]),
        }
        for k in range(5)
    ]
    return write(tmp_path / "chains.jsonl", records)


def overrides(chains: Path, *more: str) -> list[str]:
    return [f"longshort.input={chains}", f"longshort.output={chains.parent / 'thoughts.jsonl'}", *more]


def by_model(chains: Path, endpoint: Endpoint, *more: str) -> list[str]:
    llm = [f"longshort.llm.base_url={endpoint.url}", "longshort.llm.model=tiny", "longshort.llm.attempts=2"]
    return overrides(chains, "longshort.method=llm", "longshort.llm.request_attempts=1", *llm, *more)


def steps_asked_about(body: Body) -> int:
    return len(re.findall(r"^\[\d+\]", body["messages"][0]["content"].partition("STEPS\n")[2], re.MULTILINE))


async def good(body: Body) -> Response:
    count = steps_asked_about(body)
    blocks = [{"start": 1, "end": count, "kind": "All of it"}]
    if count > 2:
        blocks = [{"start": 1, "end": 2, "kind": "setup"}, {"start": 3, "end": count, "kind": "check"}]
    return completion(f"Sure!\n```json\n{json.dumps(blocks)}\n```")


def test_the_worlds_own_thoughts_are_found(tmp_path: Path) -> None:
    rng = random.Random(0)
    problems = generate_problems(seed=0, count=40, split=Split.TRAIN)
    chains = write(tmp_path / "chains.jsonl", [chain_record(problem, rng) for problem in problems])
    shown = run("chains=world", *overrides(chains))
    assert re.search(r"chains cut +40", shown)
    records = read_stage(tmp_path / "thoughts.jsonl", Chunked, key="input")
    for record in records:
        assert record.texts == [label["text"] for label in record.labels]
    assert {t.kind for r in records for t in r.thoughts} == {"restate", "step", "check", "conclude"}
    assert len({record.id for record in records}) == 40


def test_a_restatement_can_belong_to_the_thought_behind_it(tmp_path: Path) -> None:
    problems = generate_problems(seed=0, count=20, split=Split.TRAIN)
    rng = random.Random(0)
    chains = write(tmp_path / "chains.jsonl", [chain_record(problem, rng) for problem in problems])
    run("chains=world_joined", *overrides(chains))
    for record in read_stage(tmp_path / "thoughts.jsonl", Chunked, key="input"):
        texts = [label["text"] for label in record.labels]
        assert record.texts == [" ".join(texts[:2]), *texts[2:]]
        assert concise_forms(record)[0] == record.labels[1]["concise"]


def test_paragraphs_are_cut_by_markers(chains: Path) -> None:
    run(*overrides(chains))
    record = read(chains.parent / "thoughts.jsonl")[4]
    assert record["thoughts"] == [
        {"text": "Let x be 2.\n\nSo x + 1 = 3.", "kind": "start"},
        {"text": "Wait, is x 2?\n\nYes.\n\nThe answer is 3.", "kind": "check"},
    ]
    assert record["separator"] == "\n\n"
    assert read(chains.parent / "thoughts.rejects.jsonl") == []


def test_a_chain_in_tags_is_rejected(chains: Path) -> None:
    tagged = {"problem": "p", "ground_truth": 1, "chain": "<think>a</think>"}
    chains.write_text(chains.read_text() + json.dumps(tagged) + "\n")
    run(*overrides(chains))
    (rejected,) = read(chains.parent / "thoughts.rejects.jsonl")
    assert (rejected["reason"], rejected["detail"][:7]) == ("a protocol tag in the chain", "<think>")


def test_a_model_cuts(chains: Path) -> None:
    with serve(good) as endpoint:
        shown = run(*by_model(chains, endpoint))
        again = run(*by_model(chains, endpoint))
    assert re.search(r"requests to the model +5", shown)
    assert re.search(r"requests to the model +0", again)
    assert len(endpoint.bodies) == 5
    records = read_stage(chains.parent / "thoughts.jsonl", Chunked, key="input")
    assert [record.id for record in records] == ["r0", "r1", "r2", "r3", "r4"]
    assert [t.kind for t in records[4].thoughts] == ["setup", "check"]
    assert records[1].thoughts[0].kind == "all of it"


def test_what_is_never_valid_is_rejected_with_its_reason(chains: Path) -> None:
    async def respond(body: Body) -> Response:
        count = steps_asked_about(body)
        if count == 4:
            return failure(400)
        if count == 5:
            return completion('[{"start": 1, "end": 4, "kind": "a"}]')
        return await good(body)

    with serve(respond) as endpoint:
        run(*by_model(chains, endpoint))
        asked = len(endpoint.bodies)
        run(*by_model(chains, endpoint))
        # What was refused has no reply to remember; what was bad has.
        assert len(endpoint.bodies) == asked + 1
    assert [record["id"] for record in read(chains.parent / "thoughts.jsonl")] == ["r0", "r1", "r2"]
    refused, bad = read(chains.parent / "thoughts.rejects.jsonl")
    assert refused == {"id": "r3", "reason": "no reply that can be used", "detail": "refused: status 400: no"}
    assert bad["detail"] == "the last thought ends at 4, not at 5 (attempt 2 of 2)"


def test_a_bad_reply_is_corrected(chains: Path) -> None:
    async def respond(body: Body) -> Response:
        return await good(body) if len(body["messages"]) > 1 else completion("Hm?")

    with serve(respond) as endpoint:
        run(*by_model(chains, endpoint))
    assert len(endpoint.bodies) == 10
    assert len(read(chains.parent / "thoughts.jsonl")) == 5


def test_an_endpoint_that_fails_ends_the_run_and_keeps_what_there_is(chains: Path) -> None:
    async def respond(body: Body) -> Response:
        return await good(body) if steps_asked_about(body) != 5 else failure(500)

    with serve(respond) as endpoint, pytest.raises(UnavailableError, match="run the command again"):
        run(*by_model(chains, endpoint, "longshort.llm.concurrency=1"))
    assert not (chains.parent / "thoughts.jsonl").exists()
    with serve(good) as endpoint:
        run(*by_model(chains, endpoint))
    assert len(endpoint.bodies) == 1


def test_a_killed_run_goes_on_where_it_was(chains: Path) -> None:
    async def respond(body: Body) -> Response:
        # The last one waits for a death that comes from outside.
        await asyncio.sleep(60 if len(endpoint.bodies) == 4 else 0)
        return await good(body)

    with serve(respond) as endpoint:
        command = [sys.executable, "-m", "verl_longshort.cli", "chunk"]
        command += by_model(chains, endpoint, "longshort.llm.concurrency=1")
        process = subprocess.Popen(command, env={**os.environ, "NO_PROXY": "127.0.0.1"})
        deadline = time.monotonic() + 60
        while len(endpoint.bodies) < 4:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    assert not (chains.parent / "thoughts.jsonl").exists()
    with serve(good) as endpoint:
        run(*by_model(chains, endpoint))
    assert len(endpoint.bodies) == 2
    assert len(read(chains.parent / "thoughts.jsonl")) == 5


def test_a_model_in_this_process_is_asked_and_repeats_itself(chains: Path) -> None:
    folder = chains.parent / "model"
    model = build_model()
    model.config.max_position_embeddings = 2048
    model.save_pretrained(folder)
    word_level().save_pretrained(folder)
    more = [f"longshort.llm.model={folder}", "longshort.llm.temperature=1.0", "longshort.llm.max_tokens=6"]
    given = overrides(chains, "longshort.method=llm", "longshort.llm.attempts=2", *more)
    said = []
    for _ in range(2):
        # A random model never says JSON.
        with pytest.raises(UserError, match="no chain could be cut; the first one, r0: no reply"):
            run(*given)
        replies = chains.parent / "thoughts.replies.jsonl"
        said.append(sorted(line["id"] + str(line["replies"]) for line in read(replies)[1:]))
        replies.unlink()
    assert said[0] == said[1]
    assert len(said[0]) == 10
    assert len(read(chains.parent / "thoughts.rejects.jsonl")) == 5


def test_progress_is_reported(chains: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORT_PROGRESS", str(chains.parent / "progress.json"))
    run(*overrides(chains))
    assert json.loads((chains.parent / "progress.json").read_text())["done"] == 5


MISTAKES = {
    "longshort.method=both": "longshort.method = both: must be one of rules, llm",
    "longshort.method=llm": "longshort.llm.model = None: is required",
    "longshort.splitter='('": "longshort.splitter = (: is no regular expression",
    "longshort.input=nowhere.jsonl": "longshort.input = nowhere.jsonl: no such file",
    "longshort.input=/": "longshort.input = /: is a folder: give the path of a .jsonl file",
    "longshort.metod=llm": "longshort.metod = llm: no such key; did you mean longshort.method?",
}


@pytest.mark.parametrize(("override", "message"), MISTAKES.items(), ids=MISTAKES.keys())
def test_mistakes_are_named(chains: Path, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        run(*overrides(chains, override))
    assert message in str(caught.value)


BAD_RECORDS = {
    "{": "line 2: is not JSON",
    "[1]": "line 2: is not a JSON object",
    '{"problem": "a", "chain": "b"}': "line 2: ground_truth: Field required",
    '{"problem": "a", "chain": "", "ground_truth": 1}': "line 2: chain: String should have at least 1",
    '{"problem": "a", "chain": 3, "ground_truth": 1}': "line 2: chain: Input should be a valid string",
    '{"id": "r0", "problem": "a", "chain": "b", "ground_truth": 1}': "line 2: the id 'r0' is there twice",
}


@pytest.mark.parametrize(("line", "message"), BAD_RECORDS.items(), ids=range(len(BAD_RECORDS)))
def test_a_bad_record_is_named_by_file_and_line(chains: Path, line: str, message: str) -> None:
    first = chains.read_text().splitlines()[0]
    chains.write_text(f"{first}\n{line}\n")
    with pytest.raises(UserError, match=rf"chains\.jsonl, {message}"):
        run(*overrides(chains))


def test_lost_words_are_noticed(tmp_path: Path) -> None:
    record = {"id": "a", "problem": "p", "ground_truth": "1", "chain": "a b", "separator": " "}
    thoughts = [{"text": "a", "kind": "x"}]
    path = write(tmp_path / "thoughts.jsonl", [{**record, "thoughts": thoughts}])
    with pytest.raises(UserError, match="joined by the separator are not the chain"):
        read_stage(path, Chunked, key="longshort.input")


class EveryStep:
    """A chunker of a file of its own: each step is a thought."""

    async def __call__(self, record: Chain, steps: Steps) -> list[Block]:
        if len(steps.texts) == 1:
            raise RejectedError("too short", record.id)
        return [Block(first=index, last=index, kind="step") for index in range(len(steps.texts))]


def test_a_new_chunker_is_a_line_in_the_registry(chains: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHUNKERS, "steps", ChunkerSpec(make=lambda _: EveryStep()))
    run(*overrides(chains, "longshort.method=steps"))
    records = read_stage(chains.parent / "thoughts.jsonl", Chunked, key="input")
    assert [record.texts for record in records] == [list(PARAGRAPHS[:count]) for count in range(2, 6)]
    assert read(chains.parent / "thoughts.rejects.jsonl") == [{"id": "r0", "reason": "too short", "detail": "r0"}]
    with pytest.raises(UserError, match="must be one of rules, llm, steps"):
        run(*overrides(chains, "longshort.method=both"))
