"""The environment: every stop reason, who is to blame, budgets, and what holds for any play."""

import dataclasses
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Closing, Role, parse_trajectory

from verl_longshort.core.environment import Environment, Limits, State, StopReason

LONG, SHORT = Role.LONG, Role.SHORT
THOUGHT = "<think>12 < 15</think>"
ASK = "<answer>the next step is hard</rethink>"
ANSWER = "<answer>\\boxed{4}</answer>"


def limits(**changes: Any) -> Limits:
    settings = {"max_turns": 8, "long_turn_tokens": 100, "short_turn_tokens": 50, "token_budget": 1000}
    return Limits.parse({**settings, **changes}, "longshort.environment")


def play(*texts: str, tokens: int = 10, finished: bool = True, **changes: Any) -> State:
    """The state after all texts; `finished` is that of the last one, the others were finished."""
    environment = Environment(limits(**changes))
    state = environment.reset("1 + 3 = ?")
    for text in texts[:-1]:
        state = environment.step(state, text, tokens=tokens, finished=True)
    return environment.step(state, texts[-1], tokens=tokens, finished=finished)


def outcome(state: State) -> tuple[StopReason | None, Role | None]:
    assert state.done == (state.stop_reason is not None) == (state.next_role is None)
    return state.stop_reason, state.fault_role


def test_long_speaks_first_and_the_roles_alternate_until_the_answer() -> None:
    environment = Environment(limits())
    state = environment.reset("1 + 3 = ?")
    assert (state.problem, state.turns, state.next_role, outcome(state)) == (
        "1 + 3 = ?",
        (),
        LONG,
        (None, None),
    )
    spoken = []
    for text, tokens in [(THOUGHT, 30), (ASK, 5), (f"  {THOUGHT}\n", 40), (ANSWER, 7)]:
        spoken.append(state.next_role)
        state = environment.step(state, text, tokens=tokens, finished=True)
    assert spoken == [LONG, SHORT, LONG, SHORT]
    assert outcome(state) == (StopReason.ANSWERED, None)
    assert (state.tokens, state.total_tokens, state.rethinks) == ({LONG: 70, SHORT: 12}, 82, 1)
    assert state.final_text == THOUGHT + ASK + THOUGHT + ANSWER
    assert tuple(parse_trajectory(state.final_text)) == state.turns


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([THOUGHT], (None, None)),
        ([THOUGHT, ASK], (None, None)),
        ([THOUGHT, ANSWER], (StopReason.ANSWERED, None)),
        ([ANSWER], (StopReason.MALFORMED, LONG)),
        (["no tags"], (StopReason.MALFORMED, LONG)),
        (["<think>EOS came too early"], (StopReason.MALFORMED, LONG)),
        ([THOUGHT, THOUGHT], (StopReason.MALFORMED, SHORT)),
        ([THOUGHT, f"{ANSWER} bye"], (StopReason.MALFORMED, SHORT)),
        ([THOUGHT, f"{ANSWER}</rethink>"], (StopReason.MALFORMED, SHORT)),
        ([""], (StopReason.EMPTY_TURN, LONG)),
        ([" \n"], (StopReason.EMPTY_TURN, LONG)),
        (["<think> </think>"], (StopReason.EMPTY_TURN, LONG)),
        ([THOUGHT, "<answer></rethink>"], (StopReason.EMPTY_TURN, SHORT)),
        ([THOUGHT, ASK, "<think></think>"], (StopReason.EMPTY_TURN, LONG)),
    ],
)
def test_a_finished_turn(texts: list[str], expected: tuple[StopReason | None, Role | None]) -> None:
    state = play(*texts)
    assert outcome(state) == expected
    assert len(state.turns) == len(texts)


@pytest.mark.parametrize(
    ("last", "max_turns", "expected"),
    [
        (ASK, 2, StopReason.MAX_TURNS),
        (ANSWER, 2, StopReason.ANSWERED),
        (ASK, 3, None),
        ("<answer>x", 2, StopReason.MALFORMED),
    ],
)
def test_the_last_allowed_turn(last: str, max_turns: int, expected: StopReason | None) -> None:
    assert play(THOUGHT, last, max_turns=max_turns).stop_reason is expected


def test_an_odd_cap_can_end_with_a_thought() -> None:
    state = play(THOUGHT, ASK, THOUGHT, max_turns=3)
    assert outcome(state) == (StopReason.MAX_TURNS, None)


def test_the_turn_cap_is_named_before_the_budget() -> None:
    assert play(THOUGHT, ASK, max_turns=2, token_budget=20).stop_reason is StopReason.MAX_TURNS


@pytest.mark.parametrize("text", ["<think>and so", "", "no tags yet", "<thi", "<answer>4</answer> and more"])
@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (1000, (StopReason.TURN_CUT, LONG)),
        (100, (StopReason.TURN_CUT, LONG)),
        (99, (StopReason.TOKEN_BUDGET, None)),
    ],
)
def test_a_cut_turn_without_a_closing_tag(text: str, budget: int, expected: tuple[StopReason, Role | None]) -> None:
    state = play(text, tokens=min(budget, 100), finished=False, token_budget=budget)
    assert outcome(state) == expected
    assert not state.turns[-1].ok


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (THOUGHT, (None, None)),
        ("<think></think>", (StopReason.EMPTY_TURN, LONG)),
        (f"{THOUGHT} and", (StopReason.MALFORMED, LONG)),
    ],
)
def test_a_cut_turn_that_is_closed_is_judged_like_any_other(
    text: str, expected: tuple[StopReason | None, Role | None]
) -> None:
    assert outcome(play(text, tokens=100, finished=False)) == expected


def test_a_used_up_budget_ends_after_a_good_turn_but_not_after_the_answer() -> None:
    assert outcome(play(THOUGHT, ASK, tokens=10, token_budget=20)) == (StopReason.TOKEN_BUDGET, None)
    assert outcome(play(THOUGHT, ANSWER, tokens=10, token_budget=20)) == (StopReason.ANSWERED, None)
    assert outcome(play(THOUGHT, ASK, tokens=10, token_budget=21)) == (None, None)


def test_only_a_good_turn_counts_as_a_rethink() -> None:
    assert play(THOUGHT, ASK).rethinks == 1
    assert play(THOUGHT, f"{ASK}.").rethinks == 0


def test_turn_budget_is_the_smaller_of_turn_limit_and_rest() -> None:
    environment = Environment(limits(token_budget=130))
    state = environment.reset("p")
    assert environment.turn_budget(state) == 100
    state = environment.step(state, THOUGHT, tokens=70, finished=True)
    assert environment.turn_budget(state) == 50
    state = environment.step(state, ASK, tokens=50, finished=True)
    assert environment.turn_budget(state) == 10


@pytest.mark.parametrize("text", ["", "<think>half a", THOUGHT])
def test_an_aborted_turn_ends_the_trajectory_and_is_nobodys_fault(text: str) -> None:
    environment = Environment(limits())
    state = environment.abort(environment.reset("p"), text, tokens=3)
    assert outcome(state) == (StopReason.ABORTED, None)
    assert (state.final_text, state.total_tokens) == (text, 3)


def test_an_ended_trajectory_takes_no_further_turn() -> None:
    environment = Environment(limits())
    state = play(THOUGHT, ANSWER)
    with pytest.raises(ValueError, match=r"ended \(answered\); call reset"):
        environment.step(state, THOUGHT, tokens=1, finished=True)
    with pytest.raises(ValueError, match="ended"):
        environment.abort(state)
    with pytest.raises(ValueError, match="ended"):
        environment.turn_budget(state)


@pytest.mark.parametrize("tokens", [-1, 101])
def test_tokens_outside_the_turns_budget_are_refused(tokens: int) -> None:
    with pytest.raises(ValueError, match=rf"tokens is {tokens} in turn 1 \(long\).*0 to 100.*max_tokens"):
        play(THOUGHT, tokens=tokens)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_turns", 1),
        ("max_turns", 2.0),
        ("max_turns", True),
        ("long_turn_tokens", 0),
        ("short_turn_tokens", -5),
        ("short_turn_tokens", None),
        ("token_budget", "1"),
        ("token_budget", 1),
    ],
)
def test_limits_that_leave_no_room_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"environment\.{key} = {value}: set a whole number of [12] or more"):
        limits(**{key: value})


@given(st.data())
def test_any_play_keeps_the_limits_and_never_changes_a_state(data: st.DataObject) -> None:
    caps = limits(
        max_turns=data.draw(st.integers(2, 6)),
        long_turn_tokens=data.draw(st.integers(1, 20)),
        short_turn_tokens=data.draw(st.integers(1, 20)),
        token_budget=data.draw(st.integers(2, 60)),
    )
    environment = Environment(caps)
    states = [environment.reset("p")]
    while not states[-1].done:
        state = states[-1]
        assert state.next_role is ROLES[len(state.turns) % 2]
        budget = environment.turn_budget(state)
        assert budget >= 1
        frozen = pickle.dumps(state)
        states.append(
            environment.step(
                state,
                data.draw(st.sampled_from([THOUGHT, ASK, ANSWER, "<think>x", "", "<answer></rethink>"])),
                tokens=data.draw(st.integers(0, budget)),
                finished=data.draw(st.booleans()),
            )
        )
        assert pickle.loads(frozen) == state
    check_end(states[-1], caps)


def check_end(state: State, caps: Limits) -> None:
    assert 1 <= len(state.turns) <= caps.max_turns
    assert state.total_tokens <= caps.token_budget
    assert all(turn.ok for turn in state.turns[:-1])
    assert state.rethinks == sum(turn.closing is Closing.RETHINK for turn in state.turns if turn.ok)
    blamed = state.stop_reason in (StopReason.MALFORMED, StopReason.EMPTY_TURN, StopReason.TURN_CUT)
    assert state.fault_role is (state.turns[-1].role if blamed else None)
    assert (state.stop_reason is StopReason.ANSWERED) == (
        state.turns[-1].ok and state.turns[-1].closing is Closing.ANSWER
    )


def test_a_state_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        play(THOUGHT).problem = "q"  # type: ignore[misc]
