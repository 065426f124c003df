"""Evaluation of models behind a real local HTTP server: the same result as in this process."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import JSONResponse
from helpers.benchmark_files import FILES, gpqa_row, write_rows
from helpers.llm_server import Body, Respond, completion, failure, in_turn, serve
from helpers.word_models import FOLLOWING
from longshort_reward.errors import UserError
from test_runner import data, models, overrides, pair  # noqa: F401 (fixtures)

from verl_longshort.base.errors import UnavailableError
from verl_longshort.base.files import Record
from verl_longshort.base.journal import read_record_file
from verl_longshort.base.stage import execute
from verl_longshort.stages.eval import EvalStage
from verl_longshort.world.tiny_tokenizer import build_tokenizer

QUICK = ["longshort.endpoint.attempts=1", "longshort.endpoint.timeout_s=20"]


def evaluate(overrides):
    return execute(EvalStage(), overrides=overrides)


def word_server(*, trims: bool = False, **hidden: Any) -> Respond:
    """Serves the models of `FOLLOWING`. `trims` leaves the stop string out, as servers do that do not know
    how to put it in; `hidden` replaces parts of the reply.
    """
    tokenizer = build_tokenizer()

    async def respond(body: Body) -> JSONResponse:
        following = FOLLOWING[Path(body["model"]).name]
        said = [tokenizer.decode(body["prompt"]).split()[-1]]
        while said[-1] not in body["stop"] and said[-1] in following and len(said) <= body["max_tokens"]:
            said.append(following[said[-1]])
        ended = said[-1] in body["stop"]
        text = " " + " ".join(said[1:])
        choice = {
            "text": text.removesuffix(said[-1]) if trims and ended else text,
            "finish_reason": "length" if len(said) > body["max_tokens"] and not ended else "stop",
            "stop_reason": said[-1] if ended else None,
        }
        reply = {"choices": [choice], "usage": {"completion_tokens": len(said) - 1}}
        return JSONResponse({**reply, **hidden})

    return respond


def at(url: str, *speakers: str) -> list[str]:
    return [*(f"longshort.endpoint.base_url.{speaker}={url}" for speaker in speakers), *QUICK]


def records(folder: Path, name: str) -> dict[str, Record]:
    _, found = read_record_file(folder / f"{name}.jsonl")
    return {record["id"]: {**record, "seconds": None} for record in found}


@pytest.mark.parametrize("trims", [False, True])
@pytest.mark.parametrize("short", ["short", "asking", "doubting"])
def test_a_pair_behind_endpoints_gives_the_records_of_a_pair_in_this_process(
    data: Path,  # noqa: F811
    models: dict[str, Path],  # noqa: F811
    trims: bool,
    short: str,
) -> None:
    inside = evaluate(pair("inside", data, models, short=short))
    with serve(word_server(trims=trims)) as endpoint:
        outside = evaluate(pair("outside", data, models, *at(endpoint.url, "long", "short"), short=short))
    assert records(data.parent, "outside") == records(data.parent, "inside")
    assert outside.tokens == inside.tokens
    body = endpoint.bodies[0]
    assert (body["temperature"], body["max_tokens"], body["stop"]) == (0.0, 60, ["</think>"])
    header, _ = read_record_file(data.parent / "outside.jsonl")
    assert header["models"]["long"] == [str(models["long"]), endpoint.url]


@pytest.mark.parametrize("mode", ["long_cot", "direct"])
def test_a_single_model_behind_an_endpoint_begins_with_the_tag_of_its_mode(
    data: Path,  # noqa: F811
    models: dict[str, Path],  # noqa: F811
    mode: str,
) -> None:
    chosen = f"longshort.mode={mode}"
    inside = evaluate(overrides("inside", data, chosen, single=models["single"]))
    with serve(word_server()) as endpoint:
        outside = evaluate(overrides("outside", data, chosen, *at(endpoint.url, "single"), single=models["single"]))
    assert (outside.accuracy, outside.tokens) == (inside.accuracy, inside.tokens)
    assert {record["text"] for record in records(data.parent, "outside").values()} == {
        record["text"] for record in records(data.parent, "inside").values()
    }


def chat(name: str, data: Path, url: str, *more: str) -> list[str]:  # noqa: F811
    return overrides(name, data, "longshort.mode=plain", *at(url, "single"), *more, single=Path("gpt"))


def test_any_chat_endpoint_can_be_evaluated(data: Path) -> None:  # noqa: F811
    with serve(in_turn([completion(r"It is \boxed{4}.", tokens=7)])) as endpoint:
        summary = evaluate(chat("chat", data, endpoint.url, "longshort.system_prompt=Be brief."))
    assert summary.accuracy.value == pytest.approx(1 / 6)
    assert (summary.tokens.value, summary.stop_reasons) == (7.0, {"stop": 6})
    body = endpoint.bodies[0]
    assert (body["model"], body["max_tokens"]) == ("gpt", 60)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert all(0 <= body["seed"] < 2**31 for body in endpoint.bodies)


def test_benchmarks_of_several_kinds_in_one_evaluation(data: Path) -> None:  # noqa: F811
    choices = data.parent / "gpqa.csv"
    write_rows(choices, [gpqa_row(number) for number in range(1, 7)])
    aime = FILES["aime25"].write(data.parent, "aime.jsonl")
    replies = in_turn([completion(r"Wait. So \boxed{B}", tokens=5)])
    with serve(replies) as endpoint:
        more = [f"longshort.data=[{choices},{aime}]", "longshort.samples=2", "longshort.temperature=1.0"]
        summary = evaluate(chat("chat", data, endpoint.url, *more))
    found = records(data.parent, "chat")
    assert {record["correct"] for record in found.values() if record["ground_truth"] == "B"} == {True}
    assert {record["correct"] for record in found.values() if record["ground_truth"] != "B"} == {False}
    assert {"gpqa/5/1", "aime/0/0"} < found.keys()
    assert "\nB) " in found["gpqa/0/0"]["problem"]
    assert (list(summary.benchmarks), summary.aha_rate, summary.samples) == (["aime", "gpqa"], 1, 2)
    header, _ = read_record_file(data.parent / "chat.jsonl")
    assert [origin["file"] for origin in header["benchmarks"]] == ["gpqa.csv", "aime.jsonl"]
    assert (header["data"], header["problems"], header["option_seed"]) == ("gpqa+aime", 7, 0)


def test_reasoning_that_the_server_took_out_is_kept(data: Path) -> None:  # noqa: F811
    message = {"role": "assistant", "content": r"\boxed{4}", "reasoning_content": "Wait, 4."}
    reply = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"completion_tokens": 9}}
    with serve(in_turn([JSONResponse(reply)])) as endpoint:
        summary = evaluate(chat("chat", data, endpoint.url))
    assert summary.aha_rate == 1
    texts = {record["text"] for record in records(data.parent, "chat").values()}
    assert texts == {"<think>\nWait, 4.\n</think>\n\n\\boxed{4}"}


def test_an_evaluation_goes_on_when_the_endpoint_is_back(data: Path) -> None:  # noqa: F811
    good = completion(r"\boxed{4}")
    with (
        serve(in_turn([good, good, failure(503)])) as endpoint,
        pytest.raises(UnavailableError, match="503"),
    ):
        evaluate(chat("chat", data, endpoint.url, "longshort.max_num_seqs=1"))
    with serve(in_turn([good])) as endpoint:
        assert evaluate(chat("chat", data, endpoint.url, "longshort.max_num_seqs=1")).problems == 6
    assert len(endpoint.bodies) == 4


def test_an_endpoint_that_does_not_count_tokens_is_refused(
    data: Path,  # noqa: F811
    models: dict[str, Path],  # noqa: F811
) -> None:
    with (
        serve(word_server(usage=None)) as endpoint,
        pytest.raises(UnavailableError, match="does not count tokens"),
    ):
        evaluate(pair("pair", data, models, *at(endpoint.url, "long", "short")))
    message = {"content": "4"}
    reply = JSONResponse({"choices": [{"message": message, "finish_reason": "stop"}]})
    with (
        serve(in_turn([reply])) as endpoint,
        pytest.raises(UnavailableError, match="does not count tokens"),
    ):
        evaluate(chat("chat", data, endpoint.url))


def test_an_endpoint_that_does_not_say_why_it_stopped_is_refused(
    data: Path,  # noqa: F811
    models: dict[str, Path],  # noqa: F811
) -> None:
    choice = {"text": " <think> so", "finish_reason": "stop"}
    reply = JSONResponse({"choices": [choice], "usage": {"completion_tokens": 3}})
    with (
        serve(in_turn([reply])) as endpoint,
        pytest.raises(UnavailableError, match="which stop string"),
    ):
        evaluate(pair("pair", data, models, *at(endpoint.url, "long", "short")))


def test_a_refused_prompt_ends_the_evaluation(data: Path) -> None:  # noqa: F811
    with (
        serve(in_turn([failure(400)])) as endpoint,
        pytest.raises(UnavailableError, match="refused a problem"),
    ):
        evaluate(chat("chat", data, endpoint.url))


MISTAKES = {
    "longshort.endpoint.base_url.long=http://x/v1": "longshort.endpoint.base_url.short = None: is needed",
    "longshort.endpoint.api_key_env=NO_SUCH_KEY,longshort.endpoint.base_url={long:x,short:x}": (
        "longshort.endpoint.api_key_env = NO_SUCH_KEY: no such environment variable"
    ),
    "longshort.endpoint.attempts=0": "longshort.endpoint.attempts = 0: must be a whole number from 1 on",
    "longshort.endpoint.tokenizer.long=./no,longshort.endpoint.base_url={long:x,short:x}": (
        "longshort.endpoint.tokenizer.long = ./no: no such folder"
    ),
    "longshort.mode=early_stop,longshort.endpoint.base_url.single=x,longshort.models.single=x/y/z,"
    "longshort.endpoint.tokenizer.single={short}": ("longshort.mode = early_stop: needs the model in this process"),
}


@pytest.mark.parametrize(("given", "message"), MISTAKES.items(), ids=range(len(MISTAKES)))
def test_mistakes_are_named(
    data: Path,  # noqa: F811
    models: dict[str, Path],  # noqa: F811
    given: str,
    message: str,
) -> None:
    more = given.replace("={short}", f"={models['short']}").replace(",longshort", "\nlongshort").split("\n")
    with pytest.raises(UserError) as caught:
        evaluate(pair("pair", data, models, *more))
    assert message in str(caught.value)
