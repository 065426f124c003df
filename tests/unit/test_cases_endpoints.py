"""Endpoints that answer in their own way: why a reply ended, what they refuse, and replies of other shapes."""

import asyncio
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from fastapi.responses import JSONResponse
from helpers.llm_server import Body, Respond, completion, failure, in_turn, serve
from longshort_reward.errors import UserError
from rich.console import Console
from test_endpoint_eval import at, chat, records, word_server
from test_llm_client import SAMPLING, ask
from test_runner import data, models, overrides, pair  # noqa: F401 (fixtures)

from verl_longshort.base.errors import UnavailableError
from verl_longshort.base.stage import execute
from verl_longshort.engines.sampling_params import TooLongError
from verl_longshort.evaluation.runner import Task, _answer
from verl_longshort.evaluation.settings import EvaluationSettings, Mode
from verl_longshort.evaluation.summary import Summary, summarise
from verl_longshort.llm.client import RefusedError, Reply
from verl_longshort.llm.endpoint import CompletionEndpoint
from verl_longshort.llm.finish import finish_reason
from verl_longshort.llm.server import Server
from verl_longshort.problems.reader import Problem
from verl_longshort.stages.chunk import ChunkStage
from verl_longshort.stages.eval import EvalStage

BLOCKS = '[{"start": 1, "end": 1, "kind": "plan"}, {"start": 2, "end": 2, "kind": "check"}]'
NAMES = "request_names={max_tokens: max_completion_tokens, seed: null, n: null, temperature: null}"
STOPS = (
    *("stop", "eos_token", "eos", "end", "end_turn", "STOP", "stop_sequence", "Stop", "completed"),
    *("FINISH_REASON_STOP", "FinishReason.STOP", "end-of-text", "null", "", None),
)
CUTS = ("length", "max_tokens", "MAX_TOKENS", "max_length", "model_length")


def message(content: Any, reason: Any = "stop", **more: Any) -> JSONResponse:
    """A reply, which may hold half a character."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": reason}
    reply = {"choices": [choice], "usage": {"completion_tokens": 3}}
    return Response(json.dumps(reply), media_type="application/json")  # type: ignore[return-value]


# ---- why a reply ended ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "tokens", "right"),
    [
        *((word, 3, "stop") for word in STOPS),
        *((word, 3, "length") for word in CUTS),
        *((word, 8, "length") for word in (None, "", *CUTS)),
        *((word, 3, "aborted") for word in ("abort", "aborted", "cancelled", "error")),
        *((word, 3, "content_filter") for word in ("content_filter", "SAFETY", "refusal")),
        *((word, 8, word) for word in ("tool_calls", "function_call", "something_else")),
        ("stop", 8, "stop"),
        ({"type": "stop", "matched": 2}, 3, "stop"),
        (None, None, "stop"),
    ],
)
def test_why_a_reply_ended(given: Any, tokens: int | None, right: str) -> None:
    assert finish_reason(given, tokens=tokens, max_tokens=8) == right


def cut_by_a_model(folder: Path, respond: Respond, *more: str) -> tuple[str, list[Body]]:
    """What the stage `chunk` prints, and what it asked."""
    chain = {"id": "a", "problem": "p", "ground_truth": 1, "chain": "one\n\ntwo"}
    (folder / "chains.jsonl").write_text(json.dumps(chain) + "\n")
    shown = io.StringIO()
    with serve(respond) as endpoint:
        given = [
            f"longshort.input={folder / 'chains.jsonl'}",
            f"longshort.output={folder / 'thoughts.jsonl'}",
            "longshort.method=llm",
            f"longshort.llm.base_url={endpoint.url}",
            "longshort.llm.model=m",
            "longshort.llm.attempts=2",
            "longshort.llm.request_attempts=2",
            *more,
        ]
        execute(ChunkStage(), Console(file=shown, width=100), overrides=given)
    return shown.getvalue(), endpoint.bodies


@pytest.mark.parametrize("reason", ["eos_token", None, "tool_calls"])
def test_a_reply_that_the_model_ended_is_used_whatever_the_server_calls_it(tmp_path: Path, reason: Any) -> None:
    _, bodies = cut_by_a_model(tmp_path, in_turn([message(BLOCKS, reason)]))
    assert len(bodies) == 1
    assert len(json.loads((tmp_path / "thoughts.jsonl").read_text())["thoughts"]) == 2


@pytest.mark.parametrize(
    ("reason", "shown"), [("MAX_TOKENS", "cut (length); it may have"), ("SAFETY", "content_filter")]
)
def test_a_reply_that_was_cut_is_asked_for_again_and_not_for_ever(tmp_path: Path, reason: str, shown: str) -> None:
    with pytest.raises(UserError) as caught:
        cut_by_a_model(tmp_path, in_turn([message(BLOCKS, reason)]))
    assert shown in str(caught.value)
    # The bad replies are kept: the same command asks nothing, and needs no server.
    with pytest.raises(UserError):
        cut_by_a_model(tmp_path, in_turn([failure(500)]))


REASONS = {
    None: "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "MAX_TOKENS": "length",
}


@pytest.mark.parametrize(("reason", "right"), REASONS.items())
def test_the_stop_reason_of_a_single_model_is_no_cut_unless_it_was_one(
    data: Path,  # noqa: F811
    reason: str | None,
    right: str,
) -> None:
    summary, _ = evaluated(data, in_turn([message(r"\boxed{4}", reason)]), "longshort.limit=1")
    assert summary.stop_reasons == {right: 1}


def evaluated(data: Path, respond: Respond, *more: str) -> tuple[Summary, list[Body]]:  # noqa: F811
    with serve(respond) as endpoint:
        return execute(EvalStage(), overrides=chat("chat", data, endpoint.url, *more)), endpoint.bodies


def continuation(**choice: Any) -> JSONResponse:
    return JSONResponse({"choices": [{"text": "so", **choice}], "usage": {"completion_tokens": 3}})


TURNS: dict[str, tuple[Mapping[str, Any], tuple[str, ...], str, str]] = {
    "end of text": ({"finish_reason": "eos_token"}, ("</think>", "</x>"), "so", "stop"),
    "the only stop string": ({"finish_reason": "stop_sequence"}, ("</think>",), "so</think>", "stop"),
    "a reported one": ({"finish_reason": None, "matched_stop": "</x>"}, ("</think>", "</x>"), "so</x>", "stop"),
    "no reason, all tokens": ({}, ("</think>",), "so", "length"),
    "cut": ({"finish_reason": "max_tokens"}, ("</think>",), "so", "length"),
    "filtered": ({"finish_reason": "content_filter", "stop_reason": None}, ("</think>",), "so", "aborted"),
}


@pytest.mark.parametrize(("choice", "stop", "text", "reason"), TURNS.values(), ids=TURNS)
def test_why_a_turn_ended(choice: Mapping[str, Any], stop: tuple[str, ...], text: str, reason: str) -> None:
    generation = continued(in_turn([continuation(**choice)]), stop, max_tokens=8 if choice else 3)
    assert (generation.text, generation.finish_reason) == (text, reason)


def test_a_turn_that_the_server_gave_up_is_asked_for_again() -> None:
    good = continuation(finish_reason="stop", stop_reason="</think>")
    generation = continued(in_turn([continuation(finish_reason="abort"), good]), ("</think>",))
    assert (generation.text, generation.finish_reason) == ("so</think>", "stop")
    with pytest.raises(UnavailableError, match="gave up the turn"):
        continued(in_turn([continuation(finish_reason="abort")]), ("</think>",))


@pytest.mark.parametrize("choices", [[], None, {}, "x", [None], [{"finish_reason": "stop"}]], ids=ascii)
def test_a_turn_of_another_shape_is_no_completion(choices: Any) -> None:
    shapeless = JSONResponse({"choices": choices, "usage": {"completion_tokens": 3}})
    with pytest.raises(UnavailableError, match="no completion"):
        continued(in_turn([shapeless]), ("</think>",))


def continued(respond: Respond, stop: tuple[str, ...], *, max_tokens: int = 8) -> Any:
    async def work(url: str) -> Any:
        server = Server(url, concurrency=1, timeout_s=5, attempts=2, backoff_s=0.01, key="k")
        try:
            sampling = {"seed": 1, "stop": list(stop), "max_tokens": max_tokens}
            return await CompletionEndpoint(server, "m").generate(request_id="r", prompt_ids=[1], sampling=sampling)
        finally:
            await server.aclose()

    with serve(respond) as endpoint:
        return asyncio.run(work(endpoint.url))


# ---- replies of other shapes ---------------------------------------------------------------------

THINKING = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Wait, 4."}]},
    {"type": "text", "text": r"\boxed{4}"},
]
REPLIES: dict[str, tuple[Response, Reply]] = {
    "two for one": (completion("a", "b"), Reply(text="a", finish_reason="stop", tokens=3)),
    "parts": (message([{"type": "text", "text": "a"}]), Reply(text="a", finish_reason="stop", tokens=3)),
    "thinking": (message(THINKING), Reply(text=r"\boxed{4}", finish_reason="stop", tokens=3, reasoning="Wait, 4.")),
    "half a character": (message("a\ud83d"), Reply(text="a\ufffd", finish_reason="stop", tokens=3)),
    "no content": (message(None), Reply(text="", finish_reason="stop", tokens=3)),
    "deep": (
        Response("[" * 100_000, media_type="application/json"),
        Reply(text="then", finish_reason="stop", tokens=3),
    ),
    "given up once": (message("a", "abort"), Reply(text="then", finish_reason="stop", tokens=3)),
}


@pytest.mark.parametrize(("response", "right"), REPLIES.values(), ids=REPLIES)
def test_a_reply_of_another_shape(response: Response, right: Reply) -> None:
    with serve(in_turn([response, completion("then")])) as endpoint:
        assert ask(endpoint) == [right]


def test_an_image_in_a_reply_is_no_completion() -> None:
    with serve(in_turn([message([{"type": "image"}])])) as endpoint, pytest.raises(UnavailableError, match="'image'"):
        ask(endpoint)


def test_half_a_character_in_a_reply_goes_on(tmp_path: Path) -> None:
    _, bodies = cut_by_a_model(tmp_path, in_turn([message("Hm \ud83d"), message(f"\ud83d {BLOCKS}")]))
    assert len(bodies) == 2
    assert (tmp_path / "thoughts.jsonl").exists()


def test_two_choices_for_one_count_in_an_evaluation(data: Path) -> None:  # noqa: F811
    summary, _ = evaluated(data, in_turn([completion(r"\boxed{4}", r"\boxed{5}", tokens=7)]), "longshort.limit=1")
    assert (summary.tokens.value, summary.stop_reasons) == (7.0, {"stop": 1})


# ---- what is refused -----------------------------------------------------------------------------

TOO_LONG = JSONResponse({"error": {"message": "maximum context length is 10 tokens"}}, status_code=400)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_refused_problem_is_counted_and_the_rest_goes_on(data: Path, concurrency: int) -> None:  # noqa: F811
    async def respond(body: Body) -> Response:
        first = body["messages"][0]["content"] == problems[0]
        return TOO_LONG if first else completion(r"\boxed{4}", tokens=6)

    problems = [record["problem"] for record in all_problems(data)]
    at_once = f"longshort.max_num_seqs={concurrency}"
    summary, bodies = evaluated(data, respond, at_once)
    assert summary.stop_reasons == {"stop": 5, "refused": 1}
    assert len(bodies) == 6
    (refused,) = [each for each in records(data.parent, "chat").values() if each["stop_reason"] == "refused"]
    assert (refused["problem"], refused["correct"], refused["tokens"]) == (problems[0], False, {"single": 0})
    assert "maximum context length" in refused["refusal"]
    again, bodies = evaluated(data, respond, at_once)
    assert (again, bodies) == (summary, [])


def all_problems(data: Path) -> list[Any]:  # noqa: F811
    summary, _ = evaluated(data, in_turn([completion("?")]), "longshort.name=all")
    assert summary.problems == 6
    return [record for _, record in sorted(records(data.parent, "all").items())]


def test_a_refused_turn_of_a_pair_is_counted_and_the_rest_goes_on(
    data: Path,  # noqa: F811
    models: dict[str, Path],  # noqa: F811
) -> None:
    answer = word_server()

    async def respond(body: Body) -> Response:
        seen.setdefault(len(seen) if (key := tuple(body["prompt"])) not in seen.values() else -1, key)
        return TOO_LONG if key == seen[0] else await answer(body)

    seen: dict[int, tuple[int, ...]] = {}
    with serve(respond) as endpoint:
        more = at(endpoint.url, "long", "short")
        summary = execute(EvalStage(), overrides=pair("pair", data, models, *more, "longshort.max_num_seqs=1"))
    assert summary.stop_reasons["refused"] == 1
    assert summary.problems == 6


def test_when_all_are_refused_nothing_is_counted(data: Path) -> None:  # noqa: F811
    with pytest.raises(UnavailableError, match=r"refused a problem, and answered none: .*maximum context"):
        evaluated(data, in_turn([TOO_LONG]))
    summary, _ = evaluated(data, in_turn([completion(r"\boxed{4}")]))
    assert summary.stop_reasons == {"stop": 6}


async def strict(body: Body) -> Response:
    """Like OpenAI's reasoning models: other names, and only its own sampling."""
    for key in ("max_tokens", "seed", "n", "temperature"):
        if key in body:
            return JSONResponse({"error": {"message": f"Unsupported parameter: '{key}'"}}, status_code=400)
    return completion(BLOCKS if "STEPS" in body["messages"][0]["content"] else r"\boxed{4}")


def test_parameters_can_be_renamed_and_left_out(tmp_path: Path, data: Path) -> None:  # noqa: F811
    with pytest.raises(UnavailableError, match=r"longshort\.endpoint\.request_names\.max_tokens renames it"):
        evaluated(data, strict)
    summary, bodies = evaluated(data, strict, f"longshort.endpoint.{NAMES}")
    assert summary.problems == 6
    assert sorted(bodies[0]) == ["max_completion_tokens", "messages", "model", "top_p"]
    with pytest.raises(UserError, match="request_names"):
        evaluated(data, strict)
    _, bodies = cut_by_a_model(tmp_path, strict, f"longshort.llm.{NAMES}")
    assert (bodies[0]["max_completion_tokens"], "seed" in bodies[0]) == (4096, False)
    with pytest.raises(UserError, match=r"longshort\.llm\.request_names\.max_tokens renames it"):
        cut_by_a_model(tmp_path, strict)
    with pytest.raises(UserError, match=r"longshort\.endpoint\.request_names\.max_token = "):
        evaluated(data, strict, "longshort.endpoint.request_names.max_token=x")


def test_samples_without_n_are_asked_for_one_by_one() -> None:
    async def respond(body: Body) -> Response:
        return completion(str(body["seed"]))

    with serve(respond) as endpoint:
        replies = ask(endpoint, replace(SAMPLING, samples=3), names={"n": None})
    assert [reply.text for reply in replies] == ["5", "6", "7"]
    assert "n" not in endpoint.bodies[0]


def test_a_refusal_names_the_parameter_that_it_mentions() -> None:
    refused = JSONResponse({"error": "top_p is not supported"}, status_code=422)
    with serve(in_turn([refused])) as endpoint, pytest.raises(RefusedError, match=r"k\.request_names\.top_p"):
        ask(endpoint, names={"top_p": "top_p"}, key="k")


def test_a_problem_too_long_for_a_model_in_this_process_is_refused_too() -> None:
    async def solver(problem: str, *, seed: int) -> Any:
        raise TooLongError("9000 prompt tokens")

    problem = Problem(source="a", index=0, text="long", ground_truth="4")
    task = Task(id="a/0/0", problem=problem, seed=0)
    settings = EvaluationSettings.model_construct(mode=Mode.PAIR, answer_timeout_s=1.0)
    record = asyncio.run(_answer(task, solver, settings))
    assert (record["stop_reason"], record["correct"], record["tokens"]) == ("refused", False, {"long": 0, "short": 0})
    summary = summarise("x", [record, {**record, "id": "a/1/0", "problem_index": 1}])
    assert (summary.accuracy.value, summary.tokens.value) == (0, 0)
