"""No text keeps the grading: what stands before the grader process is linear, and its limit counts processor time."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.no_collection import no_collection
from longshort_reward import Verdict, match_answer
from longshort_reward.grader_pool import Grader, GraderKilledError, GraderPool

MANY = 20_000
LONG_TEXTS = {
    "alternatives": r"\boxed{A" + " and" * 450 + " so on}",
    "letters": r"\boxed{A" + " or B" * 380 + "}",
    "boxes that open": r"\boxed{" * MANY,
    "boxes never closed": r"so \boxed{5 " * MANY,
    "boxes in boxes": r"\boxed{" * MANY + "}" * MANY,
    "boxes in a row": r"\boxed{6} " * MANY,
    "text never closed": r"\boxed{" + r"\text{" * 300 + "}",
    "texts": r"\text{" * MANY,
    "dollars": "$" * MANY,
    "answers": "answer is " * MANY,
    "choices": "B, " * MANY,
    "spaces behind a box": r"\boxed" + " " * MANY + "x",
    "braces": r"\boxed{" + "{" * 900 + "}" * 900 + "}",
    "brackets": r"\boxed{" + "(" * 900 + "6" + ")" * 900 + "}",
    "signs": r"\boxed{" + r"\pm 1," * 300 + "1}",
    "fractions": r"\boxed{" + r"\frac" * 400 + "1}",
    "powers": r"\boxed{" + "2^" * 900 + "1}",
    "inequalities": r"\boxed{" + "1<" * 900 + "1}",
    "units": r"\boxed{6" + " cm" * 600 + "}",
    "words": r"\boxed{6" + " big" * 480 + "}",
    "tags": "</think><answer>" * MANY,
    "superscripts": r"\boxed{" + "²" * 1900 + "}",
}


@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS)
@pytest.mark.parametrize("gold", ["5", "A", "x^2+1", r"3\text{ hours}"])
def test_long_texts_cost_little(text: str, gold: str) -> None:
    with no_collection():
        # This thread's time alone: a server that an earlier test left counts in the process's.
        started = time.thread_time()
        assert not match_answer(text, gold, timeout_s=1)
        assert time.thread_time() - started < 1


def test_the_limit_counts_processor_time() -> None:
    graders = GraderPool(size=1)
    try:
        assert graders.ask("x+x", "2x", boxed=True, timeout_s=5) is Verdict.MATCH
        grader = graders._slots.queue[0].grader
        assert grader is not None
        process = grader._process.pid
        # As on a machine that is busy with something else for longer than the limit.
        os.kill(process, signal.SIGSTOP)
        threading.Timer(1.5, os.kill, (process, signal.SIGCONT)).start()
        assert graders.ask(r"\sin^2 x+\cos^2 x+y", "1+y", boxed=True, timeout_s=1) is Verdict.MATCH
    finally:
        graders.close()


@pytest.fixture
def graders() -> Iterator[GraderPool]:
    pool = GraderPool(size=1)
    assert pool.ask("x+x", "2x", boxed=True, timeout_s=5) is Verdict.MATCH
    yield pool
    pool.close()


def killed_when_asked(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Kills the next graders as soon as they have their question; the list grows by the process of each."""
    killed: list[int] = []
    ask = Grader.ask

    def asked(self: Grader, *arguments: Any, **settings: Any) -> Verdict:
        if len(killed) < times:
            killed.append(self._process.pid)
            os.kill(self._process.pid, signal.SIGKILL)
        return ask(self, *arguments, **settings)

    monkeypatch.setattr(Grader, "ask", asked)
    return killed


@pytest.mark.parametrize("times", [1, 2])
def test_a_killed_grader_is_replaced_and_asked_again(
    graders: GraderPool, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    killed = killed_when_asked(monkeypatch, times)
    assert graders.ask(r"\frac{2x}{2}", "x", boxed=True, timeout_s=5) is Verdict.MATCH
    assert len(set(killed)) == times


def test_a_grader_that_never_lives_makes_no_answer_wrong(graders: GraderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = killed_when_asked(monkeypatch, 99)
    with pytest.raises(RuntimeError, match=r"was killed \(SIGKILL\); is memory short"):
        graders.ask(r"\frac{2x}{2}", "x", boxed=True, timeout_s=5)
    assert len(killed) == 3


def test_the_limit_holds_over_all_attempts(graders: GraderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(Grader, "ask", lambda self, *_, timeout_s, **__: limits.append(timeout_s) or dies(0.3))
    with pytest.raises(GraderKilledError):
        graders.ask("x", "y", boxed=True, timeout_s=0.5)
    assert limits == [0.5, pytest.approx(0.2, abs=0.1)]


def dies(after_s: float) -> Verdict:
    time.sleep(after_s)
    raise GraderKilledError("killed")
