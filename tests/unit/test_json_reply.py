r"""JSON out of replies: LaTeX survives, a repair loses no word, and what was cut is not passed for whole."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_longshort.data.gaps import read_fillings
from verl_longshort.llm.json_reply import escape_latex, json_values
from verl_longshort.llm.task_client import BadReplyError

COMMANDS = (
    r"\frac{1}{2}",
    r"\boxed{4}",
    r"\times",
    r"\neq 3",
    r"\rho",
    r"\theta",
    r"\alpha",
    r"\(x\)",
    r"\u",
)
TEXTS = st.lists(st.sampled_from([*COMMANDS, "so", "a\nb", "a < b", "é", "{", "]", "'"]), min_size=1).map(" ".join)


def reply(*texts: str) -> str:
    return json.dumps([{"gap": number, "text": text} for number, text in enumerate(texts, start=1)])


@given(st.lists(TEXTS, min_size=1, max_size=3))
def test_what_is_well_written_is_read_exactly(texts: list[str]) -> None:
    texts = [*texts, r"so \boxed{4}"]
    assert read_fillings(f"Here: {reply(*texts)} Done.", len(texts)) == texts


@pytest.mark.parametrize("command", COMMANDS)
def test_backslashes_that_were_not_doubled_are_latex(command: str) -> None:
    text = rf"hence {command} and \boxed{{4}}"
    assert read_fillings(f'[{{"gap": 1, "text": "{text}"}}]', 1) == [text]


def test_line_breaks_stay_line_breaks() -> None:
    assert read_fillings(r'[{"gap": 1, "text": "One.\nNow \boxed{4}"}]', 1) == ["One.\nNow \\boxed{4}"]
    assert read_fillings('[{"gap": 1, "text": "One.\nNow \\boxed{4}"}]', 1) == ["One.\nNow \\boxed{4}"]


def test_a_text_whose_author_doubles_backslashes_is_left_alone() -> None:
    text = r'{"a": "\\frac \neq", "b": "\t"}'
    assert escape_latex(text) == text
    with pytest.raises(BadReplyError, match="gap 1 has a backslash that is not doubled"):
        read_fillings(r'[{"gap": 1, "text": "\\frac \times \\boxed{4}"}]', 1)


GOOD = reply("one", r"two \boxed{4}")
REPAIRED = {
    "single quotes": GOOD.replace('"', "'"),
    "trailing comma": GOOD[:-1] + ",]",
    "no closing bracket": GOOD[:-1],
    "no quotes around keys": GOOD.replace('"gap"', "gap"),
    "no comma": GOOD.replace("}, {", "} {"),
    "in a fence": f"Sure!\n```json\n{GOOD[:-1]},]\n```",
}


@pytest.mark.parametrize("text", REPAIRED.values(), ids=REPAIRED.keys())
def test_signs_are_repaired(text: str) -> None:
    assert read_fillings(text, 2) == ["one", r"two \boxed{4}"]


@given(st.integers(0, GOOD.index('4}"') + 2))
def test_a_reply_that_was_cut_is_refused(length: int) -> None:
    with pytest.raises(BadReplyError):
        read_fillings(GOOD[:length], 2)


LOSSY = (
    '[{"gap": 1, "text": "He said "go" to \\\\boxed{4}"}]',
    '[{"gap": 1, "text": "a", "text": "\\\\boxed{4}"}]',
    '[{"gap": 1, "text": "\\\\boxed{4}" and more}]',
    '[{"gap": 1, "text": "\\\\boxed{4}"} /* not yet */ {"gap": 2',
)


@pytest.mark.parametrize("text", LOSSY)
def test_a_repair_that_loses_words_is_refused(text: str) -> None:
    try:
        (filling,) = read_fillings(text, 1)
    except BadReplyError:
        return
    assert filling == 'He said "go" to \\boxed{4}'


REASONS = {
    reply("one"): "the gaps are 1, not 1 to 2 in order",
    reply("one", "two", "three"): "the gaps are 1, 2, 3, not 1 to 2",
    reply("one", "two"): "the last text does not end",
    reply("", r"\boxed{4}"): "gap 1 has no text",
    reply("<think> one", r"\boxed{4}"): "gap 1 has the tag <think>",
    '[{"gap": 2, "text": "a"}, {"gap": 1, "text": "b"}]': "the gaps are 2, 1",
    '[{"gap": 1, "text": ["a"]}, {"gap": 2, "text": "b"}]': "gap 1 has no text",
    "no": "no JSON list",
}


@pytest.mark.parametrize(("text", "reason"), REASONS.items(), ids=range(len(REASONS)))
def test_the_reason_is_told(text: str, reason: str) -> None:
    with pytest.raises(BadReplyError, match=reason):
        read_fillings(text, 2)


@given(st.text())
def test_nothing_that_is_said_is_an_error(text: str) -> None:
    assert all(isinstance(value, list | dict) for value in json_values(text))


def test_depth_is_no_error() -> None:
    assert list(json_values("[" * 10_000)) == []
