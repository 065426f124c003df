r"""The forms that answers take, right ones and wrong ones that look alike, each against its ground truth.

`KNOWN_GAPS` are right answers that are not recognised, `KNOWN_LENIENCE` wrong ones that are accepted: there
math-verify decides, and another reading here would cost more than it brings. Each has its reason.
"""

import pytest
from longshort_reward import match_answer

Cases = dict[str, list[tuple[str, str]]]

RIGHT: Cases = {
    "numbers": [
        ("42", "42"),
        ("+42", "42"),
        ("042", "42"),
        ("42.", "42"),
        ("42.000", "42"),
        ("-17", "-17"),
        ("\u221217", "-17"),
        ("- 17", "-17"),
        ("0", "-0"),
        ("033", "33"),
        ("27.0", "27"),
        ("27", "27.0"),
    ],
    "thousands": [
        ("1,234", "1234"),
        ("1234", "1,234"),
        (r"1{,}234", "1234"),
        (r"1\,234", "1234"),
        (r"1\,234\,567", "1234567"),
        ("1,234,567.5", "1234567.5"),
        ("10,080", "10080"),
        ("1 234 567", "1234567"),
    ],
    "decimals and fractions": [
        ("0.5", r"\frac{1}{2}"),
        (r"\frac12", "0.5"),
        (r"\tfrac{3}{4}", "0.75"),
        ("3/4", r"\dfrac{3}{4}"),
        (r"\frac{6}{8}", r"\frac{3}{4}"),
        (r"\frac{-3}{4}", r"-\frac{3}{4}"),
        (r"-\frac{3}{4}", r"\frac{3}{-4}"),
        (".75", "0.75"),
        ("0.333333", r"\frac{1}{3}"),
        (r"\frac{1.5}{2}", "0.75"),
        (r"\cfrac{1}{2}", "0.5"),
        (r"0.\overline{3}", r"\frac13"),
        (r"0.1\overline{6}", "1/6"),
        (r"-1.\overline{12}", r"-\frac{37}{33}"),
        (r"{1 \over 2}", r"\frac12"),
    ],
    "mixed numbers": [
        (r"2\frac{1}{2}", "2.5"),
        ("2.5", r"2\frac{1}{2}"),
        (r"\frac{5}{2}", r"2\frac{1}{2}"),
        (r"2 \frac12", r"\frac{5}{2}"),
        (r"-1\frac{1}{4}", "-1.25"),
        ("2 1/2", "2.5"),
        ("-2 1/2", r"-\frac52"),
    ],
    "scientific notation": [
        (r"3 \times 10^8", "300000000"),
        (r"3.0 \cdot 10^{8}", "3e8"),
        ("1.5e-3", "0.0015"),
        (r"6.02 \times 10^{23}", r"6.02\times10^{23}"),
        (r"10^{-4}", "0.0001"),
        (r"2^{10}", "1024"),
    ],
    "percentages": [
        (r"25\%", "25"),
        ("25%", r"25\%"),
        ("25", r"25\%"),
        (r"25\%", "0.25"),
        ("0.25", r"25\%"),
        (r"12.5 \%", r"12.5\%"),
        (r"33\frac{1}{3}\%", r"33\frac{1}{3}\%"),
        (r"25\text{ percent}", "25"),
        (r"25 \text{ percent}", r"25\%"),
    ],
    "units": [
        (r"10\text{ cm}", "10"),
        ("10 cm", "10"),
        ("10", r"10\,\text{cm}"),
        (r"10 \text{ cm}^2", "10"),
        (r"10\mathrm{~cm}", "10"),
        (r"5\text{ hours}", "5"),
        ("5 hours", "5"),
        (r"\frac{3}{4}\text{ mile}", r"\frac34"),
        (r"12\text{ square units}", "12"),
        (r"60\text{ km/h}", "60"),
        (r"7 \text{ dollars}", "7"),
        (r"\text{7 cm}", "7"),
        ("10 cm", r"10\text{ centimeters}"),
        ("10 meters", "10 m"),
        (r"6\text{ feet}", "6 ft"),
        (r"2\sqrt{2}\text{ cm}", r"\sqrt{8}\text{ cm}"),
        ("3 m/s", "3"),
        (r"\mathrm{6\,cm}", "6"),
    ],
    "degrees": [
        (r"45^\circ", "45"),
        ("45", r"45^\circ"),
        (r"45^{\circ}", r"45^\circ"),
        (r"45\text{ degrees}", "45"),
        ("45°", "45"),
        (r"45\degree", "45"),
        (r"100^\circ \text{C}", "100"),
    ],
    "currency": [
        (r"\$12", "12"),
        (r"\$12.50", "12.5"),
        ("12.50", r"\$12.50"),
        (r"\$1,250", "1250"),
        (r"\$ 32,\!348", "32348"),
        (r"\text{\$}12", "12"),
        ("€12", "12"),
    ],
    "equations": [
        ("x = 5", "5"),
        ("5", "x=5"),
        ("x=5", "x = 5"),
        ("y = 2x + 1", "2x+1"),
        ("y=2x+1", "y = 1 + 2x"),
        (r"x = \frac{1}{2}", "0.5"),
        (r"f(x) = x^2", "x^2"),
        ("2x + y = 3", "4x+2y=6"),
        (r"n \equiv 3 \pmod 7", r"n\equiv 3\pmod{7}"),
        (r"(x-1)^2 + y^2 = 4", "y^2+(x-1)^2=4"),
    ],
    "several values": [
        ("1, 2", "2, 1"),
        (r"x=1 \text{ or } x=2", "1,2"),
        ("x = 1, x = 2", "1,2"),
        (r"1 \text{ and } 2", "1, 2"),
        (r"\{1,2\}", "1,2"),
        (r"-1, \frac{1}{2}, 3", r"3,-1,0.5"),
        (r"x=1,\,-2", "-2,1"),
    ],
    "plus or minus": [
        (r"\pm 3", "3,-3"),
        ("3,-3", r"\pm 3"),
        (r"\pm 3", r"\pm3"),
        (r"1 \pm \sqrt{2}", r"1+\sqrt2, 1-\sqrt2"),
        (r"x = \pm 3", r"\pm 3"),
        (r"\{-3, 3\}", r"\pm 3"),
    ],
    "ordered pairs": [
        ("(1, 2)", "(1,2)"),
        (r"\left(1, 2\right)", "(1,2)"),
        (r"(\frac{1}{2}, 3)", "(0.5, 3)"),
        ("(x, y) = (1, 2)", "(1,2)"),
        (r"\left(3, \frac{\pi}{2}\right)", r"(3, \pi/2)"),
        ("(1,-2,3)", "(1, -2, 3)"),
        (r"\langle 1, 2 \rangle", "(1,2)"),
        ("(1,2), (3,4)", "(3,4),(1,2)"),
        (r"\langle 1/2, 3 \rangle", "(0.5, 3)"),
        ("x=1,y=2", "(1,2)"),
    ],
    "ratios": [
        ("3 : 2", "3:2"),
        ("1:2", r"\frac12"),
    ],
    "sets": [
        (r"\{1, 2, 3\}", r"\{3,2,1\}"),
        (r"\left\{ 1, 2 \right\}", r"\{1,2\}"),
        (r"\emptyset", r"\varnothing"),
        (r"\{\}", r"\emptyset"),
        (r"\mathbb{R}", r"(-\infty,\infty)"),
        (r"\{0.5\}", r"\{\frac12\}"),
    ],
    "intervals": [
        ("[1, 2]", "[1,2]"),
        (r"(-\infty, 3]", r"(-\infty,3]"),
        (r"x \le 3", r"(-\infty,3]"),
        ("x > 2", r"(2,\infty)"),
        (r"1 < x \leq 3", "(1,3]"),
        (r"x \in (1,3]", "(1,3]"),
        (r"(-\infty,1)\cup(2,\infty)", r"(2,\infty)\cup(-\infty,1)"),
        (r"\left[\frac{1}{2},\infty\right)", r"[0.5,\infty)"),
        (r"(2, +\infty)", r"(2,\infty)"),
        (r"[0,1] \cup [2,3]", r"[2,3]\cup[0,1]"),
        (r"\{x : x > 2\}", r"(2,\infty)"),
    ],
    "matrices": [
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
        (r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
        (r"\begin{pmatrix} 1/2 \\ 0 \end{pmatrix}", r"\begin{pmatrix} \frac{1}{2} \\ 0 \end{pmatrix}"),
        (r"\begin{pmatrix} -1 & 0 \\ 0 & 1.0 \end{pmatrix}", r"\begin{pmatrix}-1&0\\0&1\end{pmatrix}"),
    ],
    "roots and constants": [
        (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
        (r"\sqrt[3]{8}", "2"),
        (r"4\pi", r"\pi \cdot 4"),
        (r"\frac{\pi}{6}", r"\pi/6"),
        (r"e^2", "e^{2}"),
        (r"\log_2 8", "3"),
        (r"\sqrt2", r"\sqrt{2}"),
        ("3-2i", "-2i+3"),
        ("√3", r"\sqrt{3}"),
        ("2√(12)", r"4\sqrt{3}"),
        (r"\arctan 1", r"\frac{\pi}{4}"),
        (r"\frac12\pi", r"\frac{\pi}{2}"),
        ("2π", r"2\pi"),
        (r"\binom{5}{2}", "10"),
        ("5!", "120"),
    ],
    "polynomials": [
        ("x^2+2x+1", "(x+1)^2"),
        ("2(x+3)", "2x+6"),
        ("(x-2)(x+2)", "x^2-4"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
        ("ab+ac", "a(b+c)"),
        ("-x+1", "1-x"),
    ],
    "bases": [
        ("1011_2", "1011_2"),
        ("1011_{2}", "1011_2"),
        (r"2516_8", r"2516_{8}"),
    ],
    "choices": [
        ("C", "C"),
        ("(C)", "C"),
        ("c)", "C"),
        (r"\text{C}", "C"),
        (r"\textbf{(C)}", "C"),
        (r"\mathrm{(C)}", "(C)"),
        ("C. 12", "C"),
        (r"\textbf{(C) } 12", "C"),
        ("C) 12", "C"),
        ("Option C", "C"),
    ],
    "words": [
        (r"\text{Evelyn}", "Evelyn"),
        ("Evelyn", r"\text{Evelyn}"),
        (r"\text{ even }", "even"),
        ("Yes", "yes"),
        (r"\textbf{No}", "no"),
        (r"\text{no solution}", r"\text{No solution}"),
        (r"\text{Monday}", "monday"),
        (r"\mathrm{True}", "true"),
    ],
    "delimiters": [
        ("$42$", "42"),
        ("$$42$$", "42"),
        (r"\(42\)", "42"),
        (r"\[42\]", "42"),
        (r"{42}", "42"),
        (r"\displaystyle\frac{1}{2}", "0.5"),
        (r"\boxed{42}", "42"),
        (r"\mathbf{42}", "42"),
        (r"~42~", "42"),
    ],
}

WRONG: Cases = {
    "numbers": [
        ("43", "42"),
        ("-42", "42"),
        ("4.2", "42"),
        ("420", "42"),
        ("42", "4 2"),
        ("42.01", "42"),
        ("", "42"),
    ],
    "thousands": [("1,235", "1234"), ("1.234", "1234"), ("12,34", "1234"), ("1,234", "1,2,3,4")],
    "decimals and fractions": [
        ("0.33", r"\frac{1}{3}"),
        ("0.3334", r"\frac{1}{3}"),
        (r"\frac{4}{3}", r"\frac{3}{4}"),
        (r"\frac{3}{4}", r"-\frac{3}{4}"),
        ("0.05", "0.5"),
    ],
    "mixed numbers": [(r"2\frac{1}{2}", "1"), (r"2\frac{1}{3}", "2.5"), (r"\frac{21}{2}", r"2\frac12")],
    "scientific notation": [
        (r"3 \times 10^7", r"3 \times 10^8"),
        (r"3 \times 10^{-8}", r"3\times10^8"),
        ("3e8", "3e9"),
    ],
    "percentages": [(r"2.5\%", "25"), (r"25\%", "2.5"), (r"25\%", "250"), (r"26\%", r"25\%")],
    "units": [
        (r"11\text{ cm}", "10"),
        (r"10\text{ cm}", "100"),
        ("cm", "10"),
        ("10 m", "10 cm"),
        (r"2\text{ hours}", r"2\text{ minutes}"),
        ("50 cents", "50 dollars"),
        ("10 in", "10 cm"),
        ("5 ms", "5 m"),
        (r"5\text{ cm}", r"5\text{ cm}^2"),
        (r"6\sqrt{2}\text{ cm}", r"6\sqrt{2}\text{ m}"),
    ],
    "degrees": [(r"46^\circ", "45"), (r"45^\circ", "54")],
    "currency": [(r"\$12.05", "12.50"), (r"\$125", "1250")],
    "equations": [
        ("x = 6", "5"),
        ("y=2x-1", "2x+1"),
        ("2x+y=4", "2x+y=3"),
        ("(x-1)^2+y^2=4", "(x+1)^2+y^2=4"),
    ],
    "several values": [
        ("1", "1,2"),
        ("1,2,3", "1,2"),
        ("1,-2", "1,2"),
        (r"x=1 \text{ or } x=3", "1,2"),
        ("1,1", "1,2"),
        ("1,2,2", "1,2"),
    ],
    "plus or minus": [("3", r"\pm 3"), (r"\pm 3", "3"), (r"\pm 2", r"\pm 3"), (r"1\pm\sqrt3", r"1\pm\sqrt2")],
    "ordered pairs": [
        ("(2,1)", "(1,2)"),
        ("(1,2,3)", "(1,2)"),
        ("(1,-2)", "(1,2)"),
        ("(1,2),(3,5)", "(1,2),(3,4)"),
        ("(x,y)=(1,2)", "(2,1)"),
        ("x=1,y=2", "(2,1)"),
    ],
    "ratios": [("2:3", "3:2"), ("1:2", "2:1")],
    "sets": [
        ("(1,2)", r"\{1,2\}"),
        (r"\{1,2\}", "(1,2)"),
        ("[1,2]", r"\{1,2\}"),
        (r"\{1,2\}", r"\{1,2,3\}"),
        (r"\{1\}", r"\emptyset"),
        (r"\{1,4\}", r"\{1,2\}"),
        ("0", r"\emptyset"),
    ],
    "intervals": [
        ("(1,2)", "[1,2]"),
        ("[1,2)", "(1,2]"),
        (r"x<3", r"(-\infty,3]"),
        (r"x \ge 2", r"(2,\infty)"),
        (r"(-\infty,1]\cup(2,\infty)", r"(-\infty,1)\cup(2,\infty)"),
        ("(1,4]", "(1,3]"),
    ],
    "matrices": [
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
    "roots and constants": [
        (r"2\sqrt{3}", r"3\sqrt{2}"),
        ("3.14", r"\pi"),
        ("1.4142", r"\sqrt2"),
        (r"\frac{\pi}{3}", r"\frac{\pi}{6}"),
        ("3+2i", "3-2i"),
        (r"\sqrt{12}", "12"),
    ],
    "inequalities": [("x<3", "x>3"), (r"x \ge 2", "x > 2"), ("x=1", "x>1")],
    "polynomials": [("x^2+2x+2", "(x+1)^2"), ("x^2-4", "(x-2)^2"), ("2x+3", "2(x+3)"), ("x-1", "1-x")],
    "bases": [("1011_2", "1011_3"), ("1010_2", "1011_2")],
    "choices": [
        ("D", "C"),
        ("(D)", "C"),
        ("C", "D"),
        ("D. C", "C"),
        ("12", "C"),
        ("CD", "C"),
        ("A, C", "C"),
        (r"\text{(A) and (B)}", "A"),
        ("B or C", "B"),
        ("Option D", "C"),
    ],
    "words": [
        (r"\text{Evelyn}", r"\text{Evan}"),
        ("odd", "even"),
        ("seat", "east"),
        ("no", "yes"),
        (r"\text{not even}", "even"),
        ("Tuesday", "Monday"),
        ("AB", "BA"),
    ],
    "delimiters": [("$43$", "42"), (r"\boxed{43}", "42"), ("{4}2", "4")],
}

KNOWN_GAPS = [
    ("four", "4", "number words are words; which of them are numbers depends on the language"),
]
KNOWN_LENIENCE = [
    ("1,2", "(1,2)", "brackets around several values are often left out"),
    ("(1,2)", "1,2", "and often written where none were asked for"),
    (r"\frac{1}{2}", r"\frac{1}{2}\%", "a percent sign on one side may be a unit left out"),
    ("1011", "1011_2", "a base on one side only counts as left out"),
]


def matches(answer: str, truth: str) -> bool:
    # A slow machine must not decide.
    return match_answer(rf"\boxed{{{answer}}}", truth, timeout_s=60)


def flat(cases: Cases) -> list[object]:
    return [
        pytest.param(answer, truth, id=f"{form}: {answer} ~ {truth}")
        for form, pairs in cases.items()
        for answer, truth in pairs
    ]


@pytest.mark.parametrize(("answer", "truth"), flat(RIGHT))
def test_right_answers_match(answer: str, truth: str) -> None:
    assert matches(answer, truth)


@pytest.mark.parametrize(("answer", "truth"), flat(WRONG))
def test_wrong_answers_do_not(answer: str, truth: str) -> None:
    assert not matches(answer, truth)


@pytest.mark.parametrize(("answer", "truth", "reason"), KNOWN_GAPS)
@pytest.mark.xfail(strict=True, reason="right and not recognised")
def test_known_gaps(answer: str, truth: str, reason: str) -> None:
    assert matches(answer, truth), reason


@pytest.mark.parametrize(("answer", "truth", "reason"), KNOWN_LENIENCE)
@pytest.mark.xfail(strict=True, reason="wrong and accepted")
def test_known_lenience(answer: str, truth: str, reason: str) -> None:
    assert not matches(answer, truth), reason


def test_the_table_is_broad() -> None:
    assert sum(map(len, [*RIGHT.values(), *WRONG.values()])) >= 250
