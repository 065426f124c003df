"""A long chain is cut where its answer has settled, and every probe is paid for."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.errors import UserError
from longshort_reward.protocol import THINK_CLOSE

from verl_longshort.core.trajectory import Generation
from verl_longshort.evaluation.early_stop import EarlyStopSolver, settled
from verl_longshort.evaluation.settings import EarlyStop
from verl_longshort.world.tiny_tokenizer import build_tokenizer

TOKENIZER = build_tokenizer()
PROBE = "</think> <answer>"
ANSWER = 4  # tokens of "\boxed{ 4 } </answer>"
ASK = 2  # tokens of PROBE
BLOCK = {"boundaries": ["."], "agree": 2, "probe": PROBE, "probe_tokens": 8}


def words(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


class Scripted:
    """An engine that writes the given thoughts in order, and answers a probe with the last digit it read."""

    def __init__(self, thoughts: list[str]) -> None:
        self.thoughts = list(thoughts)

    async def __call__(self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        context = TOKENIZER.decode(prompt_ids)
        if context.endswith(PROBE):
            digit = next(word for word in reversed(context.split()) if word.isdigit())
            text = f"\\boxed{{ {digit} }} </answer>"
        else:
            text = self.thoughts.pop(0)
        ids = words(text)[: sampling["max_tokens"]]
        cut = len(words(text)) > sampling["max_tokens"]
        return Generation(token_ids=ids, logprobs=None, finish_reason="length" if cut else "stop")


def solve(thoughts: list[str], *, budget: int = 100, **changes: Any) -> dict[str, Any]:
    settings = SimpleNamespace(
        system_prompt="", temperature=0.0, top_p=1.0, limits=SimpleNamespace(token_budget=budget)
    )
    early_stop = EarlyStop.parse({**BLOCK, **changes})
    solver = EarlyStopSolver(settings, early_stop, TOKENIZER, Scripted(thoughts))  # type: ignore[arg-type]
    return asyncio.run(solver("start 1 ; a 2 ?", seed=0))


def test_two_equal_answers_end_the_chain():
    record = solve(["so 3 .", "check 4 .", "yes 4 .", "check 4 .", "so </think>", "<answer> 9 </answer>"])
    assert record["text"] == "<think> so 3 . check 4 . yes 4 . </think> <answer> \\boxed{ 4 } </answer>"
    assert record["stop_reason"] == "early_stop"
    assert record["probe_answers"] == [" 3 ", " 4 ", " 4 "]
    # the opening tag, three thoughts of three tokens, the last probe; and the two probes before it
    assert record["tokens"] == {"single": 1 + 9 + ASK + ANSWER, "probes": 2 * (ASK + ANSWER)}


def test_a_chain_that_does_not_settle_ends_by_itself_and_pays_for_its_probes():
    record = solve(["so 3 .", "so 4 .", "so </think>", "<answer> \\boxed{ 4 } </answer>"])
    assert record["text"].endswith("so </think> <answer> \\boxed{ 4 } </answer>")
    assert (record["stop_reason"], record["tokens"]["probes"]) == ("answered", 2 * (ASK + ANSWER))


def test_more_agreement_stops_later():
    thoughts = ["so 4 ."] * 5 + ["so </think>", "<answer> \\boxed{ 4 } </answer>"]
    lengths = [solve(thoughts, agree=k)["tokens"]["single"] for k in (2, 3, 4)]
    assert lengths == [1 + 3 * k + ASK + ANSWER for k in (2, 3, 4)]


@given(st.lists(st.sampled_from(["so 3 .", "so 4 .", "check a 4 ."]), max_size=8), st.integers(2, 60))
def test_the_budget_holds_with_probes_and_all(thoughts: list[str], budget: int) -> None:
    script = [*thoughts, f"so {THINK_CLOSE}", "<answer> \\boxed{ 4 } </answer>"]
    record = solve(script, budget=budget)
    assert sum(record["tokens"].values()) <= budget
    assert len(words(record["text"])) == record["tokens"]["single"]


@given(st.lists(st.sampled_from(["3", " 3 ", "4", None])), st.integers(2, 4))
def test_what_settled_means(answers: list[str | None], agree: int) -> None:
    last = answers[-agree:]
    same = len(last) == agree and None not in last and len({str(a).strip() for a in last}) == 1
    assert settled(answers, agree) is same


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("boundaries", []),
        ("boundaries", "."),
        ("boundaries", [""]),
        ("agree", 1),
        ("probe", ""),
        ("probe_tokens", 0),
    ],
)
def test_settings_that_cannot_work_are_named(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"longshort.early_stop.{key}"):
        EarlyStop.parse({**BLOCK, key: value}, "longshort.early_stop")
