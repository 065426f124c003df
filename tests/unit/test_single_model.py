"""A single model's answer: what it is given, how it ends, whether it is well formed."""

import asyncio
from typing import Any

import pytest
from longshort_reward.protocol import ANSWER_CLOSE

from verl_longshort.core.environment import StopReason
from verl_longshort.core.single_model import SingleAnswer, SingleMode, opening_ids, solve_alone, well_formed
from verl_longshort.core.trajectory import Generation
from verl_longshort.world.tiny_tokenizer import build_tokenizer

TOKENIZER = build_tokenizer()


def words(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def ask(said: str, finish: str = "stop", mode: SingleMode = SingleMode.LONG_COT, budget: int = 50) -> Any:
    """The answer of an engine that says `said`, and what the engine was asked."""
    asked: dict[str, Any] = {}

    async def generate(*, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        asked.update(request_id=request_id, prompt=TOKENIZER.decode(prompt_ids), **sampling)
        return Generation(token_ids=words(said), logprobs=[-1.0] * len(words(said)), finish_reason=finish)

    answer = asyncio.run(
        solve_alone(
            "start 1 ; a 2 ?",
            tokenizer=TOKENIZER,
            generate=generate,
            mode=mode,
            system_prompt="",
            token_budget=budget,
            request_id="r",
            sampling={"temperature": 1.0},
        )
    )
    return answer, asked


def test_the_opening_tag_is_given_and_counted():
    answer, asked = ask("so </think> <answer> \\boxed{ 3 } </answer>")
    assert asked["prompt"].endswith("? <think>")
    assert (asked["max_tokens"], asked["stop"], asked["temperature"]) == (49, [ANSWER_CLOSE], 1.0)
    assert answer.text == "<think> so </think> <answer> \\boxed{ 3 } </answer>"
    assert answer.tokens == len(answer.token_ids) + 1
    assert answer.answered
    assert TOKENIZER.decode(answer.prompt_ids) == asked["prompt"]


def test_plain_answers_get_no_opening_and_end_by_themselves():
    answer, asked = ask("so \\boxed{ 3 }", mode=SingleMode.PLAIN)
    assert asked["prompt"].endswith("?")
    assert asked["max_tokens"] == 50
    assert answer.answered
    assert answer.tokens == len(answer.token_ids)


def test_a_template_that_writes_the_tag_gets_no_second_one():
    assert opening_ids(TOKENIZER, words("start 1 <think>"), "<think>") == []
    assert opening_ids(TOKENIZER, words("start 1"), "<think>") == words("<think>")


@pytest.mark.parametrize(
    ("said", "finish", "mode", "reason"),
    [
        ("so </think> <answer> 3 </answer>", "stop", SingleMode.LONG_COT, StopReason.ANSWERED),
        ("so </think> <answer> 3 </answer>", "length", SingleMode.LONG_COT, StopReason.ANSWERED),
        ("so", "length", SingleMode.LONG_COT, StopReason.TOKEN_BUDGET),
        ("so", "stop", SingleMode.LONG_COT, StopReason.MALFORMED),
        ("so", "stop", SingleMode.PLAIN, StopReason.ANSWERED),
        ("so", "length", SingleMode.PLAIN, StopReason.TOKEN_BUDGET),
        ("so", "aborted", SingleMode.PLAIN, StopReason.ABORTED),
    ],
)
def test_why_it_ended(said: str, finish: str, mode: SingleMode, reason: StopReason) -> None:
    assert ask(said, finish, mode)[0].stop_reason is reason


def written(text: str, stop_reason: StopReason = StopReason.ANSWERED) -> SingleAnswer:
    return SingleAnswer(
        prompt_ids=[1],
        token_ids=[2],
        logprobs=None,
        text=text,
        tokens=1,
        stop_reason=stop_reason,
        finish_reason="stop",
        extra={},
    )


@pytest.mark.parametrize(
    ("mode", "text", "good"),
    [
        (SingleMode.LONG_COT, "<think>a < b</think> <answer>\\boxed{3}</answer>", True),
        (SingleMode.LONG_COT, "<answer>\\boxed{3}</answer>", False),
        (SingleMode.LONG_COT, "<think>a</think> <answer>\\boxed{3}</rethink>", False),
        (SingleMode.LONG_COT, "<think>a</think> <think>a</think> <answer>\\boxed{3}</answer>", False),
        (SingleMode.LONG_COT, "<think>a</think> so <answer>\\boxed{3}</answer>", False),
        (SingleMode.LONG_COT, "<think>a", False),
        (SingleMode.DIRECT, "<answer>\\boxed{3}</answer>", True),
        (SingleMode.DIRECT, "<think>a</think> <answer>\\boxed{3}</answer>", False),
        (SingleMode.PLAIN, "So it is \\boxed{\\frac{1}{2}}.", True),
        (SingleMode.PLAIN, "So it is 3.", False),
    ],
)
def test_the_form_of_a_mode(mode: SingleMode, text: str, good: bool) -> None:
    assert well_formed(mode, written(text)) is good


def test_a_plain_answer_that_was_cut_is_not_well_formed():
    assert not well_formed(SingleMode.PLAIN, written("\\boxed{3}", StopReason.TOKEN_BUDGET))
