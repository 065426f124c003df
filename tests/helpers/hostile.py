"""Answers that a grader should not be asked, and right ones that need its algebra, drawn by a seeded generator."""

import random
from collections.abc import Callable
from pathlib import Path


def hostile_answer(draw: random.Random, marker: Path) -> str:
    """The content of a box that is made to take long, to crash, or to run code that would make `marker`."""
    answer = draw.choice(_KINDS)(draw, marker)
    if draw.random() < 0.2:
        answer = f"{answer} {draw.choice(_NOISE)}"
    return answer[:1990]


def right_answer(draw: random.Random, number: int) -> tuple[str, str]:
    """An answer and the ground truth that it equals, by algebra; `number` makes it unlike the others."""
    a, b = draw.randint(2, 9), number + 10
    return draw.choice(
        (
            (rf"\frac{{{a}x+{a * b}}}{{{a}}}", f"x+{b}"),
            (f"(x+{a})(x+{b})", f"x^2+{a + b}x+{a * b}"),
            (rf"\sin^2 y+\cos^2 y+{b}+z", f"{b + 1}+z"),
            (rf"\sqrt{{{a * a}}}\cdot\frac{{w}}{{{b}}}", rf"\frac{{{a}w}}{{{b}}}"),
            (f"t({b}+u)-ut", f"{b}t"),
        )
    )


def _nested(before: str, after: str, core: str, most: int) -> Callable[[random.Random, Path], str]:
    def made(draw: random.Random, marker: Path) -> str:
        depth = draw.randint(5, most)
        return before * depth + core + after * depth

    return made


def _listed(one: Callable[[random.Random], str], joint: str, most: int) -> Callable[[random.Random, Path], str]:
    return lambda draw, marker: joint.join(one(draw) for _ in range(draw.randint(5, most)))


def _code(text: str) -> Callable[[random.Random, Path], str]:
    return lambda draw, marker: text.replace("MARKER", str(marker))


def _matrix(draw: random.Random, marker: Path) -> str:
    size = draw.randint(3, 12)
    rows = ("&".join(f"x_{{{i}}}^{{{draw.randint(1, 99)}}}" for i in range(size)) for _ in range(size))
    return r"\det\begin{pmatrix}" + r"\\".join(rows) + r"\end{pmatrix}"


_KINDS: tuple[Callable[[random.Random, Path], str], ...] = (
    lambda draw, marker: "9^{" * draw.randint(3, 40) + "9" + "}" * 40,
    lambda draw, marker: f"{draw.randint(10**5, 10**9)}!",
    lambda draw, marker: f"({draw.randint(100, 9999)}!)!",
    lambda draw, marker: f"2^{{2^{{{draw.randint(20, 90)}}}}}+x",
    lambda draw, marker: rf"\sum_{{k=1}}^{{10^{{{draw.randint(5, 12)}}}}}\frac{{1}}{{k^{{{draw.randint(1, 9)}}}}}",
    lambda draw, marker: rf"\prod_{{k=1}}^{{{draw.randint(10**4, 10**8)}}}(1+\frac{{x}}{{k}})",
    lambda draw, marker: rf"\int_0^{{{draw.randint(1, 99)}}}x^{{x^{{x}}}}e^{{\sin(x^{{{draw.randint(2, 99)}}})}}dx",
    lambda draw, marker: rf"\lim_{{x\to 0}}\frac{{\sin^{{{draw.randint(5, 60)}}}x}}{{x^{{{draw.randint(5, 60)}}}}}",
    lambda draw, marker: rf"(a+b+c+d+e)^{{{draw.randint(20, 400)}}}",
    lambda draw, marker: rf"\binom{{{draw.randint(10**6, 10**12)}}}{{{draw.randint(10**5, 10**6)}}}",
    lambda draw, marker: f"1e{draw.randint(10**6, 10**12)}",
    lambda draw, marker: "".join(draw.choice("0123456789") for _ in range(draw.randint(500, 1900))),
    _matrix,
    _nested(r"\sqrt{1+", "}", "x", 150),
    _nested(r"\frac{1}{1+", "}", "x", 120),
    _nested("(", ")", "x", 400),
    _nested(r"\left(", r"\right)", "x", 100),
    _nested("{", "", "x", 900),
    _nested("-", "", "1", 900),
    _listed(lambda draw: f"x_{draw.randint(1, 99)}", "+", 250),
    _listed(lambda draw: rf"\sin({draw.randint(1, 99)}x)", "", 120),
    _listed(lambda draw: str(draw.randint(-9, 9)), ",", 500),
    _listed(lambda draw: "|x|", "^", 200),
    _code("__import__('os').mkdir('MARKER')"),
    _code(r"\text{__import__('os').mkdir('MARKER')}"),
    _code("exec(\"import os; os.mkdir('MARKER')\")"),
    _code('x + eval(\'__import__("os").mkdir("MARKER")\')'),
    _code("().__class__.__base__.__subclasses__()"),
    _code("lambda: open('MARKER', 'w')"),
    _code(r"\write18{mkdir MARKER}"),
    _code(r"\input{/etc/passwd}\def\x{\x\x}\x"),
    _code("$(mkdir MARKER)`mkdir MARKER`; mkdir MARKER"),
    _code('5"}\n{"answer": "5", "gold": "5", "boxed": true, "timeout_s": 1}\ntrue'),
    _code("true\nready\nnull"),
)
_NOISE = ("\x00", "\u202e", "\ud800", "\U0001d465", "٣", "½", "∞", "\x1b[2J", r"\\", r"\,", "%", "&", "#", "~", "$$")
