"""Malformed turns through parser and environment: no exception but the documented ones, linear time, limits kept."""

import gc
import random
import time
from collections import Counter
from collections.abc import Callable

import pytest
from helpers.malformed import GROWING, malformed_turn
from longshort_reward.protocol import ROLES, Closing, Fault, Role, parse_trajectory, parse_turn

from verl_longshort.core.environment import Environment, Limits, State, StopReason

BLAMED = (StopReason.MALFORMED, StopReason.EMPTY_TURN, StopReason.TURN_CUT)


@pytest.mark.parametrize("turns", [2_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
def test_malformed_turns(turns: int) -> None:
    draw = random.Random(13)
    faults: Counter[Fault | None] = Counter()
    reasons: Counter[StopReason | None] = Counter()
    said = 0
    while said < turns:
        state = one_play(draw)
        said += len(state.turns)
        faults.update(turn.fault for turn in state.turns)
        reasons[state.stop_reason] += 1
    # the generator reaches everything that can be wrong, and well-formed turns too
    assert set(faults) == {*Fault, None}
    assert set(reasons) == set(StopReason)


def one_play(draw: random.Random) -> State:
    """Malformed turns until the trajectory has ended; what must hold is looked at after each."""
    limits = Limits(
        max_turns=draw.randint(2, 6),
        long_turn_tokens=draw.randint(1, 40),
        short_turn_tokens=draw.randint(1, 40),
        token_budget=draw.randint(2, 90),
    )
    environment = Environment(limits)
    state = environment.reset(malformed_turn(draw), draw.choice(ROLES))
    while not state.done:
        text = malformed_turn(draw)
        if draw.random() < 0.4:
            # well formed, so that a play gets to its later turns
            text = f"<think>{draw.random()}</think>" if state.next_role is Role.LONG else "<answer>x</rethink>"
        check_turns(text)
        state = one_step(draw, environment, state, text)
        assert state.total_tokens <= limits.token_budget
        assert len(state.turns) <= limits.max_turns
        assert state.done == (state.next_role is None)
    check_end(state)
    return state


def one_step(draw: random.Random, environment: Environment, state: State, text: str) -> State:
    """The state after a turn, after impossible numbers of tokens have been refused."""
    room = draw.choice((None, draw.randint(1, 30)))
    budget = environment.turn_budget(state, room)
    assert budget >= 1
    for impossible in (-1, budget + 1):
        with pytest.raises(ValueError, match="give the engine turn_budget"):
            environment.step(state, text, tokens=impossible, finished=True, room=room)
    if draw.random() < 0.03:
        return environment.abort(state, text)
    if draw.random() < 0.03 and state.turns:
        return environment.fill(state)
    tokens = budget if draw.random() < 0.1 else draw.randint(0, budget)
    return environment.step(state, text, tokens=tokens, finished=draw.random() < 0.9, room=room)


def check_turns(text: str) -> None:
    """A turn keeps its text, is good only as the protocol says, and reads the same when it is read again."""
    for role in ROLES:
        turn = parse_turn(role, text)
        assert turn.text == text.strip()
        assert turn.body in turn.text
        assert parse_turn(role, turn.text) == turn
        if turn.ok:
            assert turn.body
            assert turn.closing is not None
            assert turn.text.endswith(turn.closing)
    joined = "".join(turn.text for turn in parse_trajectory(text))
    assert "".join(joined.split()) == ("".join(text.split()) if joined else "")


def check_end(state: State) -> None:
    blamed = state.turns[-1].role if state.stop_reason in BLAMED else None
    assert state.fault_role is blamed
    assert all(turn.ok for turn in state.turns[:-1])
    answered = state.turns[-1].ok and state.turns[-1].closing is Closing.ANSWER
    assert (state.stop_reason is StopReason.ANSWERED) == answered or state.stop_reason is StopReason.ABORTED
    with pytest.raises(ValueError, match="ended"):
        Environment(Limits(max_turns=2, long_turn_tokens=1, short_turn_tokens=1, token_budget=2)).step(
            state, "", tokens=0, finished=True
        )


@pytest.mark.parametrize("grown", GROWING.values(), ids=GROWING)
@pytest.mark.parametrize("read", [lambda text: parse_turn(Role.LONG, text), parse_trajectory], ids=["turn", "all"])
def test_four_times_the_text_takes_about_four_times_as_long(
    grown: Callable[[int], str], read: Callable[[str], object]
) -> None:
    short, long = (min(seconds(read, grown(size)) for _ in range(3)) for size in (3_000, 12_000))
    # a quadratic one takes sixteen times
    assert long < 10 * short + 0.01


def seconds(read: Callable[[str], object], text: str) -> float:
    """Of processor time, without a collection of garbage, which goes over all that pytest holds."""
    gc.disable()
    try:
        begin = time.process_time()
        read(text)
        return time.process_time() - begin
    finally:
        gc.enable()
