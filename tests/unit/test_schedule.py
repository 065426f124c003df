import pytest
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.errors import UserError
from longshort_reward.protocol import Role

from verl_longshort.core.schedule import Round, Schedule

PAPER = ["long", "long", "short", "long", "short", "long"]
schedules = st.builds(
    Schedule.parse,
    st.lists(st.sampled_from([r.value for r in Round]), min_size=1, max_size=8),
    st.integers(1, 5),
)


def test_the_papers_path_has_its_labels():
    schedule = Schedule.parse(PAPER, 3)
    assert [schedule.label(3 * i) for i in range(7)] == [
        "L0S0",
        "L1S0",
        "L2S0",
        "L2S1",
        "L3S1",
        "L3S2",
        "L4S2",
    ]
    assert schedule.updates(Role.LONG) == 12
    assert schedule.updates(Role.SHORT) == 6


@given(schedules)
def test_updates_count_the_steps_in_which_a_role_learns(schedule):
    for role in Role:
        steps = [s for s in range(1, schedule.total_steps + 1) if role in schedule.learners(s)]
        assert schedule.updates(role) == len(steps)
        for until in range(schedule.total_steps + 1):
            assert schedule.updates(role, until) == sum(step <= until for step in steps)


@given(schedules, st.data())
def test_rounds_change_exactly_at_their_boundaries(schedule, data):
    step = data.draw(st.integers(1, schedule.total_steps))
    assert schedule.rounds[schedule.round_of(step)].learners == schedule.learners(step)
    assert (schedule.round_of(step) != schedule.round_of(step + 1)) == (step % schedule.steps_per_round == 0)


def test_an_unfinished_round_does_not_count():
    assert Schedule.parse(["both"], 4).label(3) == "L0S0"


@pytest.mark.parametrize(
    ("rounds", "steps", "word"),
    [
        (["long", "lnog"], 2, "lnog"),
        ([], 2, "schedule"),
        ("long", 2, "schedule"),
        (["long"], 0, "steps_per_round"),
    ],
)
def test_bad_schedules_name_key_and_value(rounds, steps, word):
    with pytest.raises(UserError, match=word):
        Schedule.parse(rounds, steps)


def test_a_resumed_run_may_change_only_what_has_not_begun():
    schedule = Schedule.parse(["long", "short", "both"], 2)
    assert schedule.agrees_with(["long", "short"], 2, 4)
    assert schedule.agrees_with(["long", "long"], 2, 2)
    assert not schedule.agrees_with(["long", "long"], 2, 3)
    assert not schedule.agrees_with(["long", "short"], 3, 2)
