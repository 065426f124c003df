import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward import Verdict, answer_failures, judge_answer, match_answer, plain
from longshort_reward.answer import answer_region, last_boxed
from longshort_reward.grader_pool import GRADERS, GraderPool
from longshort_reward.reading.choices import choice_in_prose
from longshort_reward.reading.equality import states_another
from longshort_reward.reading.prose import said_answer

SAME = [
    ("4", "4"),
    (" 4 ", "4"),
    ("4.0", 4),
    ("4", 4.0),
    ("0.3", 0.1 + 0.2),
    (r"\frac{1}{2}", "0.5"),
    ("1/2", r"\frac12"),
    (r"\dfrac{2}{4}", r"\frac{1}{2}"),
    ("0.333333", r"\frac13"),
    ("0.166667", "1/6"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"3\frac{1}{2}", "3.5"),
    (r"50\%", "0.5"),
    (r"50\%", "50"),
    ("50", r"50\%"),
    (r"12.5\%", "12.5"),
    (r"\text{east}", "east"),
    (r"\text{ East}", r"\text{east}"),
    (r"\text{No solution.}", "no solution"),
    ("Yes", "yes"),
    ("B", "B"),
    ("(B)", "B"),
    (r"\text{(B)}", "B"),
    (r"\textbf{(B)}\ 12", "B"),
    ("B. 12", r"\text{(B)}"),
    ("[1, 2)", "[1,2)"),
    (r"\left[1,2\right)", "[1,2)"),
    ("1<x<3", "(1,3)"),
    (r"x \in [1,3]", "[1,3]"),
    (r"(3,\infty)\cup(-\infty,2)", r"(-\infty,2)\cup(3,\infty)"),
    (r"\{2,1\}", r"\{1,2\}"),
    ("2,1", "1,2"),
    (r"x=1 \text{ or } x=-2", "1,-2"),
    (r"10 \text{ cm}", "10"),
    ("10", r"10\text{ cm}"),
    (r"10\,\mathrm{cm}^2", "10"),
    (r"5\text{ apples}", "5"),
    (r"\$5", "5"),
    ("$5$", "5"),
    ("90", r"90^\circ"),
    ("1,234", 1234),
    ("1{,}234", "1,234"),
    ("x=3", "3"),
    ("3", "x=3"),
    ("y=2x+1", "2x+1"),
    (r"\sqrt{12}", r"2\sqrt{3}"),
    (r"\frac{\pi}{2}", r"\pi/2"),
    ("(x+1)^2", "x^2+2x+1"),
    ("2i+3", "3+2i"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"6.02\times10^{23}", "6.02e23"),
    ("10^6", 1000000),
    ("120", "5!"),
    ("2516_{8}", "2516_8"),
    ("\u22124", -4),
    ("9" * 80, "9" * 80),
    (r"\boxed{7}", 7),
]
DIFFERENT = [
    ("5", "4"),
    ("", "4"),
    ("-4", 4),
    ("0.33", r"\frac13"),
    ("3.4641", r"2\sqrt3"),
    ("1e-7", "2e-7"),
    (r"\frac{1}{2}", r"-\frac{1}{2}"),
    (r"5\%", "0.5"),
    ("seat", "east"),
    (r"\text{act}", "cat"),
    ("listen", "silent"),
    ("no", "yes"),
    (r"\text{even}", "odd"),
    ("C", "B"),
    (r"\text{(C)}", r"\text{(B)}"),
    ("12", "B"),
    ("(1,2)", "[1,2)"),
    ("[1,3)", "[1,2)"),
    (r"(3,\infty)\cup(-\infty,2]", r"(-\infty,2)\cup(3,\infty)"),
    (r"\{1,2,3\}", r"\{1,2\}"),
    ("1,3", "1,2"),
    ("(2,1)", "(1,2)"),
    (r"11\text{ cm}", "10"),
    ("1,2", "12"),
    ("12345", "1234"),
    ("x=4", "3"),
    ("y=2x+2", "y=2x+1"),
    ("(x+2)^2", "x^2+2x+1"),
    ("3-2i", "3+2i"),
    (r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"6.03\times10^{23}", "6.02e23"),
    ("9" * 80, "9" * 79 + "8"),
    (r"-\infty", r"\infty"),
    ("4" * 3000, "4"),
]
NEVER_ENDING = r"\boxed{\prod_{i=1}^{100000000} i}"
"""Passes every cheap screen and keeps sympy in C code for minutes."""


@pytest.mark.parametrize(("answer", "truth"), SAME)
def test_equal_answers_match(answer, truth):
    assert match_answer(rf"so it is \boxed{{{answer}}}.", truth)


@pytest.mark.parametrize(("answer", "truth"), DIFFERENT)
def test_close_but_wrong_answers_do_not(answer, truth):
    assert not match_answer(rf"so it is \boxed{{{answer}}}.", truth)


@given(st.integers(), st.integers())
def test_integers_match_exactly_when_equal_and_without_a_grader(a, b):
    assert plain.decide(str(a), str(b)) is (a == b)


@given(st.fractions(max_denominator=10**6))
def test_a_fraction_equals_its_latex(value):
    sign = "-" if value < 0 else ""
    latex = rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    assert plain.decide(latex, str(value)) is True


@given(st.text(max_size=60), st.text(min_size=1, max_size=20))
def test_plain_decisions_take_any_text(answer, truth):
    assert plain.decide(answer, truth) in (True, False, None)
    assert states_another(answer, truth) in (True, False)
    assert said_answer(answer) is None or choice_in_prose(answer) in (None, *"ABCDEFGHIJ")
    assert plain.is_runaway(answer) in (True, False)
    last_boxed(answer)


@pytest.mark.parametrize(
    ("text", "truth", "matches"),
    [
        ("42", 42, True),
        ("The answer is 42.", 42, True),
        ("first 42, then 43", 42, False),
        (r"so we get $x = \frac{1}{2}$.", "0.5", True),
        ("The answer is (C).", "C", True),
        ("A) is wrong. The answer is C", "A", False),
        ("no solution", "no solution", True),
        ("it is not east", "east", False),
        ("", 42, False),
    ],
)
def test_a_solution_without_a_box(text, truth, matches):
    assert match_answer(text, truth) is matches


def test_the_last_balanced_box_is_the_answer():
    assert last_boxed(r"\boxed{3} no, \boxed{\frac{1}{2}} done") == r"\frac{1}{2}"
    assert last_boxed(r"\boxed{\boxed{7}}") == "7"
    assert last_boxed(r"\boxed{\{1,2\}}") == r"\{1,2\}"
    assert last_boxed(r"\boxed{\left\{ 1 \right.}") == r"\left\{ 1 \right."
    assert last_boxed(r"\boxed {4} then \boxed{\frac{1}{2") == "4"
    assert last_boxed("nothing") is None


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        (r"<think> a </think><answer> \boxed{ 4 } </answer>", True),
        (r"<think> \boxed{4} </think><answer> it is \boxed{5} </answer>", False),
        (r"<think> \boxed{4} </think><answer> done </answer>", False),
        ("<think> a </think><answer> 4 </answer>", False),
        (r"<think> a </think><answer> \boxed{4} </rethink>", False),
        (r"<think> a </think><answer> \boxed{4} </rethink><think> b </think>", False),
        (r"<think> a </think><answer> \boxed{4}", False),
        (r"<answer> \boxed{4} </answer>", True),
        (r"<think> \boxed{5} </think> The answer is \boxed{4}.", True),
        (r"<think> \boxed{4} </think>", False),
        (r"<think> \boxed{4}", False),
        (r"if 3 < x > 2 then \boxed{4}", True),
    ],
)
def test_where_the_answer_may_stand(text, matches):
    assert match_answer(text, "4") is matches


def test_a_joint_trajectory_needs_a_box():
    assert answer_region("<think> a </think><answer> 4 </answer>") == ("4", True)


@pytest.mark.parametrize("truth", [None, True, ["4"], {"a": 1}, 1j])
def test_a_ground_truth_of_another_type_is_named(truth):
    with pytest.raises(TypeError, match="ground_truth = "):
        match_answer("4", truth)


@pytest.mark.parametrize("truth", ["", "  ", r"\boxed{}", float("nan"), float("inf"), "4" * 3000])
def test_a_ground_truth_that_is_no_answer_is_named(truth):
    with pytest.raises(ValueError, match="ground_truth = "):
        match_answer("4", truth)


@pytest.mark.parametrize("tower", ["9^{9^{9^{9}}}", "9^9^9", "{10}^{10^{10}}", "1000000!"])
def test_runaways_are_seen_without_evaluating(tower):
    assert plain.is_runaway(tower)


@pytest.mark.parametrize("power", ["2^{2^{10}}", "10^{100}", "7^{2023}", "2^{2^{2^2}}", "1^{9^{9}}", "100!"])
def test_large_but_harmless_powers_pass(power):
    assert not plain.is_runaway(power)


def test_the_limit_holds_in_threads_and_a_time_out_is_counted(caplog):
    before = answer_failures().get(Verdict.TIMED_OUT, 0)
    started = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        stuck = [threads.submit(judge_answer, NEVER_ENDING, "3", timeout_s=0.5) for _ in range(3)]
        fine = threads.submit(match_answer, r"\boxed{\sqrt{12}}", r"2\sqrt3")
        assert fine.result()
        assert [future.result() for future in stuck] == [Verdict.TIMED_OUT] * 3
    assert time.monotonic() - started < 30
    assert answer_failures()[Verdict.TIMED_OUT] == before + 3
    assert sum("timed_out" in record.message for record in caplog.records if record.levelname == "WARNING") <= 1


def test_a_grader_that_dies_is_replaced():
    graders = GraderPool(size=1)
    try:
        assert graders.ask("x+x", "2x", boxed=True, timeout_s=5) is Verdict.MATCH
        graders._slots.queue[0].grader._process.kill()
        graders._slots.queue[0].grader._process.wait()
        assert graders.ask("x+x", "2x", boxed=True, timeout_s=5) is Verdict.MATCH
    finally:
        graders.close()


def test_a_grader_that_is_stopped_is_given_up():
    graders = GraderPool(size=1)
    try:
        graders.ask("x", "y", boxed=True, timeout_s=5)
        process = graders._slots.queue[0].grader._process
        process.send_signal(19)
        assert graders.ask("x+x", "2x", boxed=True, timeout_s=0.2) is Verdict.TIMED_OUT
        assert process.returncode is not None
    finally:
        graders.close()


def test_the_limit_holds_where_signals_are_blocked():
    import signal

    verdicts = []

    def run():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        graders = GraderPool(size=1)
        verdicts.append(graders.ask(r"\prod_{i=1}^{100000000} i", "3", boxed=True, timeout_s=0.3))
        graders.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert verdicts == [Verdict.TIMED_OUT]


def test_the_judges_of_this_process_are_few():
    with ThreadPoolExecutor(8) as threads:
        answers = [rf"\boxed{{\sqrt{{{4 * n}}}}}" for n in range(2, 18)]
        truths = [rf"2\sqrt{{{n}}}" for n in range(2, 18)]
        assert all(threads.map(match_answer, answers, truths))
    assert sum(slot.grader is not None for slot in GRADERS._slots.queue) <= 2
