"""Turns and trajectories as text: every row of the protocol's table, and what holds for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.protocol import (
    DEFAULT_PROMPTS,
    OPENINGS,
    ROLES,
    STOP_STRINGS,
    TAGS,
    Closing,
    Fault,
    Role,
    RolePrompts,
    Turn,
    parse_trajectory,
    parse_turn,
)

LONG, SHORT = Role.LONG, Role.SHORT
NOT_TAGS = ("<", ">", "<<", "<thin", "</answer", "<<think>", "<Think>", "<rethink>", "< think>", "</ think>")

roles = st.sampled_from(ROLES)
pieces = st.sampled_from([*TAGS, *NOT_TAGS, "a < b > c", "12", "∑ₙ ≤ ∞", "é", " ", "\n", "", "\u3000", "\\boxed{4}"])
texts = st.lists(pieces | st.text(max_size=5), max_size=9).map("".join)
bodies = st.lists(st.sampled_from(["a < b", "x > 2", "<thin", "<<answer>", "</answer", "∞"]), min_size=1, max_size=3)


@st.composite
def good_turns(draw: st.DrawFn, role: Role | None = None) -> Turn:
    speaker = role or draw(roles)
    closing = draw(st.sampled_from(STOP_STRINGS[speaker]))
    space = draw(st.sampled_from(["", " ", "\n\n"]))
    return parse_turn(speaker, f"{OPENINGS[speaker]}{space}{' '.join(draw(bodies))}{space}{closing}")


@pytest.mark.parametrize(
    ("role", "text", "body", "closing"),
    [
        (LONG, "<think>a < b</think>", "a < b", Closing.THINK),
        (LONG, " \n<think>\na > b\n</think>\n ", "a > b", Closing.THINK),
        (SHORT, "<answer>so \\boxed{4}</answer>", "so \\boxed{4}", Closing.ANSWER),
        (SHORT, "<answer>the next is hard</rethink>", "the next is hard", Closing.RETHINK),
        (LONG, "<think>if x<y</think>", "if x<y", Closing.THINK),
        (LONG, "<think>1 <</think>", "1 <", Closing.THINK),
        (LONG, "<think><<think></think>", "<<think>", Closing.THINK),
        (SHORT, "<answer>5>4<thin</answe</answer</answer>", "5>4<thin</answe</answer", Closing.ANSWER),
        (SHORT, "<answer><</rethink>", "<", Closing.RETHINK),
        (LONG, "<think>naïve ∑ ≤ ∞ 数学</think>", "naïve ∑ ≤ ∞ 数学", Closing.THINK),
        (LONG, "<think>a\nb\r\nc</think>", "a\nb\r\nc", Closing.THINK),
        *((LONG, f"<think>{other}</think>", other, Closing.THINK) for other in NOT_TAGS),
        *((SHORT, f"<answer>{other}</answer>", other, Closing.ANSWER) for other in NOT_TAGS),
    ],
)
def test_good_turns(role: Role, text: str, body: str, closing: Closing) -> None:
    turn = parse_turn(role, text)
    assert (turn.ok, turn.fault, turn.body, turn.closing) == (True, None, body, closing)
    assert turn.text == text.strip()


@pytest.mark.parametrize(
    ("role", "text", "fault", "closing"),
    [
        (LONG, "", Fault.EMPTY, None),
        (LONG, " \n\u3000", Fault.EMPTY, None),
        (SHORT, "", Fault.EMPTY, None),
        (LONG, "<think></think>", Fault.EMPTY, Closing.THINK),
        (SHORT, "<answer> \n </rethink>", Fault.EMPTY, Closing.RETHINK),
        (LONG, "plain < text", Fault.NO_OPENING, None),
        (LONG, "a</think>", Fault.NO_OPENING, Closing.THINK),
        (LONG, "</think>", Fault.NO_OPENING, Closing.THINK),
        (SHORT, "4</answer>", Fault.NO_OPENING, Closing.ANSWER),
        (LONG, "<<think>a</think>", Fault.NO_OPENING, Closing.THINK),
        (LONG, "<thin", Fault.NO_OPENING, None),
        (LONG, "well, <think>a</think>", Fault.LEADING_TEXT, Closing.THINK),
        (LONG, "</think><think>a</think>", Fault.LEADING_TEXT, Closing.THINK),
        (LONG, "</think><think>a", Fault.LEADING_TEXT, None),
        (LONG, "<think>", Fault.NO_CLOSING, None),
        (LONG, "<think>half a </thin", Fault.NO_CLOSING, None),
        (LONG, "<think>a<think>b", Fault.NO_CLOSING, None),
        (SHORT, "<answer>4", Fault.NO_CLOSING, None),
        (LONG, "<think>a<think>b</think>", Fault.REPEATED_TAG, Closing.THINK),
        (LONG, "<think><think>a</think></think>", Fault.REPEATED_TAG, Closing.THINK),
        (LONG, "<think>a</think></think>", Fault.REPEATED_TAG, Closing.THINK),
        (LONG, "<think>a</think><think>b</think>", Fault.REPEATED_TAG, Closing.THINK),
        (SHORT, "<answer>a</answer></rethink>", Fault.REPEATED_TAG, Closing.ANSWER),
        (SHORT, "<answer>a</rethink></answer>", Fault.REPEATED_TAG, Closing.RETHINK),
        (LONG, "<think>a</think>.", Fault.TRAILING_TEXT, Closing.THINK),
        (LONG, "<think>a</think> <", Fault.TRAILING_TEXT, Closing.THINK),
        (LONG, "<think></think>.", Fault.TRAILING_TEXT, Closing.THINK),
        (LONG, "<answer>4</answer>", Fault.FOREIGN_TAG, None),
        (LONG, "<think>a</answer>", Fault.FOREIGN_TAG, None),
        (LONG, "<think>a <answer>4</answer></think>", Fault.FOREIGN_TAG, Closing.THINK),
        (LONG, "<think>a</think><answer>4</answer>", Fault.FOREIGN_TAG, Closing.THINK),
        (LONG, "<think>a</rethink>", Fault.FOREIGN_TAG, None),
        (SHORT, "<think>a</think>", Fault.FOREIGN_TAG, None),
        (SHORT, "<answer><think>4</answer>", Fault.FOREIGN_TAG, Closing.ANSWER),
        (SHORT, "<answer>4</think>", Fault.FOREIGN_TAG, None),
    ],
)
def test_faults(role: Role, text: str, fault: Fault, closing: Closing | None) -> None:
    turn = parse_turn(role, text)
    assert (turn.ok, turn.fault, turn.closing, turn.text) == (False, fault, closing, text.strip())


@given(roles, texts)
def test_a_turn_is_good_exactly_when_it_is_an_opening_tag_a_body_and_a_closing_tag(role: Role, text: str) -> None:
    assert parse_turn(role, text).ok == _is_good(role, text.strip())


def _is_good(role: Role, text: str) -> bool:
    """The protocol said another way, without the parser's pattern or its order of checks."""
    ends = [tag for tag in STOP_STRINGS[role] if text.endswith(tag)]
    if not ends or not text.startswith(OPENINGS[role]):
        return False
    body = text[len(OPENINGS[role]) : -len(ends[0])]
    body = body.replace("<<think>", "-").replace("<<answer>", "-").strip()
    return bool(body) and not any(tag in body for tag in TAGS)


@given(roles, texts)
def test_parsing_the_normalised_text_changes_nothing(role: Role, text: str) -> None:
    turn = parse_turn(role, text)
    assert parse_turn(role, turn.text) == turn
    assert turn.text == text.strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("no tag, 1 < 2, <thin </answer", []),
        ("<think> a </think> <answer> \\boxed{4} </answer>", [(LONG, None), (SHORT, None)]),
        (
            "<think>a</think><answer>b</rethink><think>c</think><answer>4</answer>",
            [(LONG, None), (SHORT, None)] * 2,
        ),
        ("<answer>4</answer>", [(SHORT, None)]),
        ("a</think><answer>4</answer>", [(LONG, Fault.NO_OPENING), (SHORT, None)]),
        ("oh <think>a</think><answer>4</answer>", [(LONG, Fault.LEADING_TEXT), (SHORT, None)]),
        ("<think>a</think> well <answer>4</answer>", [(LONG, Fault.TRAILING_TEXT), (SHORT, None)]),
        ("<think>a</think><answer>4</answer> bye", [(LONG, None), (SHORT, Fault.TRAILING_TEXT)]),
        ("<think>a</think><answer>4", [(LONG, None), (SHORT, Fault.NO_CLOSING)]),
        ("<think>a<answer>4</answer>", [(LONG, Fault.FOREIGN_TAG)]),
        ("<think>a</answer></think><answer>4</answer>", [(LONG, Fault.FOREIGN_TAG), (SHORT, None)]),
        ("<think>a</think></think><answer>4</answer>", [(LONG, Fault.REPEATED_TAG), (SHORT, None)]),
        ("<think></think><answer>4</answer>", [(LONG, Fault.EMPTY), (SHORT, None)]),
        ("<think>a</think><think>b</think>", [(LONG, None), (LONG, None)]),
        ("</rethink>", [(SHORT, Fault.NO_OPENING)]),
    ],
)
def test_trajectories(text: str, expected: list[tuple[Role, Fault | None]]) -> None:
    assert [(turn.role, turn.fault) for turn in parse_trajectory(text)] == expected


@given(texts)
def test_a_trajectory_loses_nothing_but_white_space_between_turns(text: str) -> None:
    turns = parse_trajectory(text)
    rest = text
    for turn in turns:
        rest = rest.lstrip()
        assert rest.startswith(turn.text)
        rest = rest[len(turn.text) :]
        assert parse_turn(turn.role, turn.text) == turn
    assert not turns or not rest.strip()


@given(st.lists(good_turns(), max_size=6), st.sampled_from(["", " ", "\n"]))
def test_good_turns_come_back_from_their_joint_text(turns: list[Turn], space: str) -> None:
    assert parse_trajectory(space.join(turn.text for turn in turns)) == turns


@given(st.lists(good_turns(), max_size=3), good_turns(), st.data())
def test_a_cut_last_turn_leaves_the_others_good(turns: list[Turn], last: Turn, data: st.DataObject) -> None:
    length = data.draw(st.integers(len(OPENINGS[last.role]), len(last.text) - 1))
    cut = last.text[:length]
    parsed = parse_trajectory("".join(turn.text for turn in turns) + cut)
    assert parsed == [*turns, parse_turn(last.role, cut)]
    assert parsed[-1].fault is Fault.NO_CLOSING


def test_default_prompts_name_the_tags_of_their_role_alone() -> None:
    for role in ROLES:
        prompt = DEFAULT_PROMPTS.for_role(role)
        assert {tag for tag in TAGS if tag in prompt} == {OPENINGS[role], *STOP_STRINGS[role]}
        assert ("\\boxed{}" in prompt) is (role is SHORT)
        # every call of a model and every row that it learns from has it
        assert len(prompt.split()) < 50


def test_roles_are_plain_strings_with_a_partner() -> None:
    assert f"{Role.LONG}/{Role.SHORT}" == "long/short"
    assert [role.partner for role in ROLES] == [Role.SHORT, Role.LONG]
    assert RolePrompts(long="l", short="s").for_role(Role.SHORT) == "s"
