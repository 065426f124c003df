"""Hostile answers through the grader: each ends in its limit of processor time, and none is wrong on a busy machine."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from helpers.hostile import hostile_answer, right_answer
from longshort_reward.answer import judge_answer
from longshort_reward.grader_pool import Verdict

LIMIT_S = 1.0
OWN_S = 1.0
"""What this process may take for one answer, before any grader is asked."""
SLACK_S = 0.5
GOLDS = ("5", "x^2+1", r"\frac{1}{2}", r"\sqrt{3}", "(1, 2)", "A", "no solution")
COUNTS = [12, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(4 * 3600)])]


@pytest.mark.parametrize("answers", COUNTS)
def test_each_ends_in_its_limit_of_processor_time(answers: int, tmp_path: Path) -> None:
    draw, marker = random.Random(13), tmp_path / "marker"
    verdicts: Counter[Verdict] = Counter()
    for _ in range(answers):
        answer, gold = hostile_answer(draw, marker), draw.choice(GOLDS)
        before, own = graders(), time.process_time()
        verdicts[judge_answer(rf"\boxed{{{answer}}}", gold, timeout_s=LIMIT_S)] += 1
        assert time.process_time() - own < OWN_S, answer
        for process, used in graders().items():
            # one that was started meanwhile has its start behind it, which is no part of the limit
            assert used - before.get(process, used) < LIMIT_S + SLACK_S, answer
    assert verdicts[Verdict.MATCH] == 0
    assert not marker.exists()
    # after all of them a grader answers as before
    assert judge_answer(r"\boxed{\frac{2x}{2}}", "x", timeout_s=5) is Verdict.MATCH


@pytest.mark.parametrize("answers", COUNTS)
def test_none_is_wrong_because_the_machine_is_busy(answers: int) -> None:
    draw = random.Random(14)
    assert judge_answer(r"\boxed{\frac{3x}{3}}", "x", timeout_s=5) is Verdict.MATCH
    with kept_waiting():
        for number in range(answers):
            answer, gold = right_answer(draw, number)
            assert judge_answer(rf"\boxed{{{answer}}}", gold, timeout_s=5) is Verdict.MATCH, (answer, gold)


def graders() -> dict[int, float]:
    """The processor time of each grader that runs, in seconds."""
    times = {}
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if any("grader_process" in part for part in child.cmdline()):
                used = child.cpu_times()
                times[child.pid] = used.user + used.system
    return times


@contextmanager
def kept_waiting() -> Iterator[None]:
    """The graders get a quarter of the time, as on a machine that is busy with something else."""
    ended = threading.Event()

    def stop_and_go() -> None:
        while not ended.is_set():
            running = [
                child.pid for child in psutil.Process().children() if "grader_process" in " ".join(child.cmdline())
            ]
            for number, seconds in ((signal.SIGSTOP, 0.15), (signal.SIGCONT, 0.05)):
                for process in running:
                    with suppress(ProcessLookupError):
                        os.kill(process, number)
                time.sleep(seconds)

    thread = threading.Thread(target=stop_and_go)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
