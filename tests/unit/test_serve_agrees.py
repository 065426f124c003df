"""What a server answers is what `longshort eval` has for the same seed: in this process and behind endpoints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from helpers.completions_server import completions_server
from helpers.serving import NO_PROMPTS, Served, save_word_models, seen_answer, serve_settings, served
from longshort_reward.protocol import Role
from test_runner import data, evaluate, pair  # noqa: F401 (a fixture)

from verl_longshort.base.journal import read_record_file
from verl_longshort.base.seeds import derived_seed
from verl_longshort.serve.reading import TurnReader

SEED = 5
SAMPLING = {"temperature": 1.6, "top_p": 0.98}
"""So that the models sometimes leave the words of their list: turns of many lengths, with faults and without."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_word_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(params=["in_process", "endpoints"])
def more(request: pytest.FixtureRequest, models: dict[str, Path]) -> Iterator[list[str]]:
    """Keys of an evaluation and of a server."""
    if request.param == "in_process":
        yield []
        return
    names = {name: models[name] for name in ("long", "doubting")}
    with completions_server(names) as long, completions_server(names) as short:
        yield [f"longshort.endpoint.base_url.long={long}", f"longshort.endpoint.base_url.short={short}"]


def expected(record: dict[str, Any]) -> dict[str, Any]:
    """What a client should see of a record."""
    readers = [TurnReader(Role(turn["role"])) for turn in record["turns"]]
    texts = [reader.finish(turn["text"]) for reader, turn in zip(readers, record["turns"], strict=True)]
    answer = texts.pop() if record["turns"][-1]["role"] == Role.SHORT else ""
    return {
        "content": answer,
        "reasoning": "\n\n".join(filter(None, texts)),
        "stop_reason": record["stop_reason"],
        "turns": [{key: turn[key] for key in ("role", "tokens", "fault")} for turn in record["turns"]],
        "tokens": record["tokens"],
    }


def request(record: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "user", "content": record["problem"]}
    return {"model": "longshort", "messages": [message], **SAMPLING, "seed": derived_seed(SEED, record["id"])}


def test_answers_are_those_of_an_evaluation(
    data: Path,  # noqa: F811
    models: dict[str, Path],
    more: list[str],
) -> None:
    sampling = [f"longshort.{key}={value}" for key, value in SAMPLING.items()]
    own = [*sampling, f"longshort.seed={SEED}", "longshort.samples=3", *more]
    evaluate(pair("pair", data, models, *own, short="doubting"))
    _, records = read_record_file(data.parent / "pair.jsonl")
    chosen = [f"longshort.models.long={models['long']}", f"longshort.models.short={models['doubting']}", NO_PROMPTS]
    with served(serve_settings([*chosen, *more, "longshort.environment.token_budget=60"])) as running:
        check(running, records)


def check(running: Served, records: list[dict[str, Any]]) -> None:
    asker = openai.OpenAI(base_url=running.url, api_key="any", max_retries=0, timeout=60)
    assert len(records) == 18
    assert len({record["stop_reason"] for record in records}) > 1
    assert any(record["rethinks"] for record in records)
    for record in records:
        for stream in (False, True):
            assert seen_answer(asker, request(record), stream=stream) == expected(record)
