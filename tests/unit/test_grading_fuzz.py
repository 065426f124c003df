r"""Fuzz over the grammar of each kind: an answer equals itself in every decoration and differs from its neighbours.

A decoration is what never changes an answer: fonts, delimiters, spacing, sizes of brackets, an introduction, unicode.
`plain.decide` is asked, which has no computer algebra system: it must decide all of these itself.
"""

from collections.abc import Callable
from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from longshort_reward import plain

FUZZ = settings(max_examples=250, deadline=None, derandomize=True)
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
WIDE = str.maketrans("0123456789.,()-%=:", "０１２３４５６７８９．，（）－％＝：")

DECORATIONS: list[Callable[[str], str]] = [
    lambda answer: answer,
    lambda answer: f" {answer} ",
    lambda answer: f"${answer}$",
    lambda answer: rf"\({answer}\)",
    lambda answer: rf"\[{answer}\]",
    lambda answer: f"{answer}.",
    lambda answer: rf"{{{answer}}}",
    lambda answer: rf"\mathbf{{{answer}}}",
    lambda answer: rf"\boldsymbol{{{answer}}}",
    lambda answer: rf"\displaystyle {answer}",
    lambda answer: rf"\textcolor{{red}}{{{answer}}}",
    lambda answer: rf"{answer}\,",
    lambda answer: rf"\quad {answer}\quad",
    lambda answer: rf"\text{{The answer is }}{answer}",
    lambda answer: f"The answer is {answer}",
    lambda answer: rf"\text{{Answer: }}{answer}",
    lambda answer: f"答案：{answer}",
    lambda answer: rf"\therefore {answer}",
    lambda answer: f"{answer}\u200b",
    lambda answer: f"\ufeff{answer}",
    lambda answer: rf"{answer}\text{{, since we checked}}",
    lambda answer: rf"\boxed{{{answer}}}",
    lambda answer: rf"{answer} \tag{{1}}",
    lambda answer: f"**{answer}**",
]
decorations = st.sampled_from(DECORATIONS)
integers = st.integers(-(10**7), 10**7)
positive = st.integers(1, 10**4)


@st.composite
def written_integers(draw: st.DrawFn, values: st.SearchStrategy[int] = integers) -> tuple[int, str]:
    value = draw(values)
    sign = draw(st.sampled_from(["-", "−", "–", "- "])) if value < 0 else ""
    digits = str(abs(value))
    if len(digits) > 3:
        digits = draw(st.sampled_from([digits, f"{abs(value):,}", f"{abs(value):,}".replace(",", draw(SEPARATORS))]))
    form = draw(st.sampled_from(["{}", "{}.0", "0{}", "{}.00"]))
    text = sign + (form.format(digits) if form != "0{}" or len(digits) <= 3 else digits)
    return value, draw(st.sampled_from([text, text.translate(WIDE)]))


SEPARATORS = st.sampled_from(["{,}", r",\!", r"\,", "\u202f", "\xa0", "，"])


@given(written_integers(), written_integers(), decorations)
@FUZZ
def test_whole_numbers(a: tuple[int, str], b: tuple[int, str], decorate: Callable[[str], str]) -> None:
    assert plain.decide(decorate(a[1]), str(a[0])) is True
    assert plain.decide(decorate(a[1]), b[1]) is (a[0] == b[0])


FRACTIONS = [
    *(r"\frac{%d}{%d}", r"\dfrac{%d}{%d}", r"\frac%d%d", r"\frac %d %d", r"\tfrac{%d}%d", r"\frac%d{%d}", "%d/%d"),
    *(r"{%d \over %d}", "%d⁄%d", r"\nicefrac{%d}{%d}", "(%d)/(%d)"),
]


@st.composite
def written_fractions(draw: st.DrawFn) -> tuple[Fraction, str]:
    top, bottom = draw(st.integers(1, 9)), draw(st.integers(2, 9))
    text = draw(st.sampled_from(FRACTIONS)) % (top, bottom)
    value = Fraction(top, bottom)
    whole = draw(st.integers(0, 20))
    if whole and value < 1 and text.startswith("\\"):
        text, value = f"{whole}{text}", whole + value
    sign = draw(st.sampled_from(["", "-", "−"]))
    return (-value if sign else value), sign + text


@given(written_fractions(), written_fractions(), decorations)
@FUZZ
def test_fractions(a: tuple[Fraction, str], b: tuple[Fraction, str], decorate: Callable[[str], str]) -> None:
    assert plain.decide(decorate(a[1]), str(a[0])) is True
    assert plain.decide(decorate(a[1]), b[1]) is (a[0] == b[0])


@given(st.integers(1, 999), st.integers(-300, 300), st.integers(1, 999), st.integers(-300, 300), decorations)
@FUZZ
def test_no_tolerance_reaches_powers_of_ten(a: int, m: int, b: int, n: int, decorate: Callable[[str], str]) -> None:
    forms = [rf"{a}\times10^{{{m}}}", rf"{a}\cdot 10^{{{m}}}", f"{a}×10{str(m).translate(SUPERSCRIPTS)}", f"{a}e{m}"]
    gold = rf"{b} \times 10^{{{n}}}"
    for form in forms:
        assert plain.decide(decorate(form), rf"{a}\times 10^{{{m}}}") is True
        assert plain.decide(decorate(form), gold) is (a * Fraction(10) ** m == b * Fraction(10) ** n)


@given(st.integers(2, 9), st.integers(2, 400), decorations)
@FUZZ
def test_tiny_neighbours_differ(base: int, power: int, decorate: Callable[[str], str]) -> None:
    gold = rf"\frac{{1}}{{{base}^{{{power}}}}}"
    assert plain.decide(decorate(gold), rf"{base}^{{-{power}}}") is True
    for other in (rf"\frac{{1}}{{{base}^{{{power + 1}}}}}", rf"\frac{{2}}{{{base}^{{{power}}}}}", "0"):
        assert plain.decide(decorate(other), gold) is False
    assert plain.decide(decorate(rf"1-{gold}"), "1") is False


@given(
    st.text("0123456789", max_size=4), st.text("0123456789", min_size=1, max_size=5), st.integers(0, 99), decorations
)
@FUZZ
def test_repeating_decimals(fixed: str, period: str, whole: int, decorate: Callable[[str], str]) -> None:
    value = (Fraction(int(str(whole) + fixed)) + Fraction(int(period), 10 ** len(period) - 1)) / 10 ** len(fixed)
    forms = [rf"{whole}.{fixed}\overline{{{period}}}", f"{whole}.{fixed}({period})"]
    if len(period) == 1:
        forms += [
            rf"{whole}.{fixed}\dot{{{period}}}",
            rf"{whole}.{fixed}\bar{period}",
            rf"{whole}.{fixed}\dot {period}",
        ]
    for form in forms:
        assert plain.decide(decorate(form), str(value)) is True
        assert plain.decide(decorate(form), str(value + Fraction(1, 10**4))) is False


UNITS = {
    "length": ["cm", "m", "km", "in", "ft"],
    "mass": ["g", "kg", "mg"],
    "time": ["s", "min", "h"],
    "volume": ["mL", "L"],
    "money": ["dollars", "cents"],
    "other money": ["euros"],
    "force": ["N", "kN"],
    "energy": ["J", "kJ"],
    "pressure": ["kPa", "MPa"],
    "speed": ["km/h", "m/s", "mph"],
    "area": ["cm^2", "m^2"],
    "dates": ["months", "years"],
    "things": ["apples"],
    "other things": ["oranges"],
}
unit = st.sampled_from([(kind, name) for kind, names in UNITS.items() for name in names])


@st.composite
def with_unit(draw: st.DrawFn, amount: int, name: str) -> str:
    base, _, power = name.partition("^")
    power = f"^{power}" if power else ""
    forms = [f"{amount} {base}{power}", rf"{amount}\text{{ {base}}}{power}", rf"{amount}\,\mathrm{{{base}}}{power}"]
    return draw(st.sampled_from([*forms, rf"\text{{{amount} {base}}}{power}", rf"{amount}~\text{{{base}}}{power}"]))


@given(st.data(), st.integers(2, 999), st.integers(2, 999), unit, unit, decorations)
@FUZZ
def test_units(
    data: st.DataObject,
    a: int,
    b: int,
    ours: tuple[str, str],
    theirs: tuple[str, str],
    decorate: Callable[[str], str],
) -> None:
    answer, again = data.draw(with_unit(a, ours[1])), data.draw(with_unit(a, ours[1]))
    assert plain.decide(decorate(answer), again) is True
    assert plain.decide(decorate(answer), str(a)) is True
    assert plain.decide(decorate(answer), str(a + 1)) is False
    assert plain.decide(decorate(answer), data.draw(with_unit(a + 1, ours[1]))) is False
    if ours != theirs:
        assert plain.decide(decorate(answer), data.draw(with_unit(a, theirs[1]))) is False


@given(st.sampled_from(["hundred", "thousand", "million", "billion"]), st.integers(2, 999), decorations)
@FUZZ
def test_scale_words(scale: str, amount: int, decorate: Callable[[str], str]) -> None:
    factor = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9}[scale]
    for form in (f"{amount} {scale}", rf"{amount}\text{{ {scale}}}", rf"{amount}\text{{ {scale} dollars}}"):
        assert plain.decide(decorate(form), str(amount * factor)) is True
        assert plain.decide(decorate(form), str(amount)) is False
        assert plain.decide(str(amount), form) is False


@given(st.integers(1, 23), st.integers(1, 59), st.integers(1, 23), st.integers(1, 59), decorations)
@FUZZ
def test_mixed_units(h: int, m: int, other_h: int, other_m: int, decorate: Callable[[str], str]) -> None:
    gold = rf"{h}\text{{ hours }}{m}\text{{ minutes}}"
    forms = [
        f"{h} hours {m} minutes",
        rf"{h}\text{{ h }}{m}\text{{ min}}",
        rf"{h}\text{{ hours and }}{m}\text{{ minutes}}",
    ]
    for form in [*forms, rf"\text{{{h} hr {m} min}}", rf"{60 * h + m}\text{{ minutes}}"]:
        assert plain.decide(decorate(form), gold) is True
        same = (h, m) == (other_h, other_m)
        assert plain.decide(decorate(form), rf"{other_h}\text{{ hours }}{other_m}\text{{ minutes}}") is same
        assert plain.decide(decorate(form), str(h)) is False


@given(st.integers(1, 12), st.integers(0, 59), st.integers(1, 12), st.integers(0, 59), decorations)
@FUZZ
def test_clock_times(h: int, m: int, other_h: int, other_m: int, decorate: Callable[[str], str]) -> None:
    morning = rf"{h}:{m:02}\text{{ a.m.}}"
    for form in (f"{h}:{m:02} AM", f"{h}:{m:02}", rf"\text{{{h}:{m:02} a.m.}}", f"{h}:{m:02} am", f"{h:02}:{m:02}"):
        assert plain.decide(decorate(form), morning) is True
        assert plain.decide(decorate(form), rf"{other_h}:{other_m:02}\text{{ a.m.}}") is ((h, m) == (other_h, other_m))
    assert plain.decide(decorate(f"{h}:{m:02} PM"), morning) is False


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=5), decorations)
@FUZZ
def test_lists_sets_and_tuples(values: list[int], decorate: Callable[[str], str]) -> None:
    texts = [str(value) for value in values]
    shuffled = sorted(texts, key=lambda text: text[::-1])
    assume(not all(len(text.lstrip("-")) == 3 for text in texts))
    gold = ", ".join(texts)
    joined = ", ".join(shuffled[:-1]) + r"\text{ and }" + shuffled[-1]
    for form in (", ".join(shuffled), "; ".join(shuffled), r"\text{ or }".join(shuffled), joined, "、".join(shuffled)):
        assert plain.decide(decorate(form), gold) is True
        assert plain.decide(decorate(form), ", ".join([*texts, "100"])) is False
        assert plain.decide(decorate(form), texts[0]) is False
    tuple_text = rf"\bigl({', '.join(texts)}\bigr)"
    assert plain.decide(decorate(tuple_text), rf"\left({','.join(texts)}\right)") is True
    assert plain.decide(decorate(tuple_text), f"({', '.join(shuffled)})") is (texts == shuffled)
    assert plain.decide(decorate(rf"\bigl\{{{', '.join(shuffled)}\bigr\}}"), rf"\{{{gold}\}}") is True
    assert plain.decide(decorate(tuple_text), rf"\{{{gold}\}}") is False


@given(st.integers(-99, 99), st.integers(1, 99), decorations)
@FUZZ
def test_plus_or_minus(a: int, b: int, decorate: Callable[[str], str]) -> None:
    for form in (rf"{a}\pm {b}", f"{a}±{b}", rf"\frac{{{2 * a}\pm {2 * b}}}{{2}}", rf"x={a}\pm{b}"):
        assert plain.decide(decorate(form), f"{a + b}, {a - b}") is True
        assert plain.decide(decorate(form), str(a + b)) is False
        assert plain.decide(decorate(form), f"{a + b}, {a - b - 1}") is False
    assert plain.decide(decorate(rf"(\pm {b}, {a})"), f"({b}, {a}), (-{b}, {a})") is True


@given(st.sampled_from("ABCDEFGHIJ"), st.sampled_from("ABCDEFGHIJ"), decorations)
@FUZZ
def test_choice_letters(a: str, b: str, decorate: Callable[[str], str]) -> None:
    for form in (a, f"({a})", rf"\text{{({a})}}", rf"\text{{{a}}}", f"({a})."):
        assert plain.decide(decorate(form), a) is True
        assert plain.decide(decorate(form), b) is (a == b)
    for form in (f"{a}. 12", f"({a}) 12", f"{a}: 12", f"{a} = 12", rf"\textbf{{({a}) }}12", f"{a.lower()})", f"选{a}"):
        assert plain.decide(form, a) is True
        assert plain.decide(form, b) is (a == b)
    if a != b:
        assert plain.decide(f"{a}, {b}", a) is False
        assert plain.decide(rf"\text{{({a}) or ({b})}}", a) is False


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=4, max_size=9), decorations)
@FUZZ
def test_words(word: str, decorate: Callable[[str], str]) -> None:
    other = word[1:] + word[0]
    form = rf"\text{{{word}}}"
    assume(plain.is_words(form) and plain.is_words(rf"\text{{{other}}}"))
    assert plain.decide(rf"\textbf{{{word.capitalize()}}}.", form) is True
    if other != word:
        assert plain.decide(rf"\text{{{other}}}", form) is False
        assert plain.decide(other, form) is False


INEQUALITIES = ["<", ">", r"\le", r"\ge", r"\leq", "≥", "≤", r"\geqslant", r"\ne", "at least ", r"\text{less than }"]


@given(st.integers(1, 999), st.sampled_from(INEQUALITIES))
@FUZZ
def test_an_inequality_is_no_number(value: int, sign: str) -> None:
    assert plain.decide(f"{sign} {value}", str(value)) is False
    assert plain.decide(f"x {sign} {value}", str(value)) is False


@given(st.text(max_size=60), st.text(min_size=1, max_size=30))
@FUZZ
def test_any_text_is_taken(answer: str, gold: str) -> None:
    assert plain.decide(answer, gold) in (True, False, None)
    if gold.strip():
        assert plain.decide(gold, gold) in (True, False)


PIECES = r"\frac \sqrt { } ( ) [ ] \{ \} 1 2 3.5 x y + - = < , ; ^ _ \text{ and } \pm \% \$ $ ° ' : ! | & \\ \pi cm"
MATHEMATICS = st.lists(st.sampled_from(PIECES.split()), max_size=14)


@given(MATHEMATICS, MATHEMATICS, decorations)
@FUZZ
def test_any_mathematics_is_taken(answer: list[str], gold: list[str], decorate: Callable[[str], str]) -> None:
    assert plain.decide(decorate(" ".join(answer)), " ".join(gold)) in (True, False, None)
