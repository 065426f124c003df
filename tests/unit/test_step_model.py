"""The simulated step of RL: cases whose answer is known, and what the dry run shows of it."""

import statistics

import pytest
from longshort_reward.protocol import ROLES, Role

from verl_longshort.planner.step_model import Engine, StepParts, draw_trajectories, generate, simulate

ENGINE = Engine(latency_s=0.01, row_s=0.001, prompt_token_s=0.0)


def parts(trajectories, learning_gpu_s=0.0, together=False, overhead_s=0.0, engines=None, prompt_tokens=0):
    return StepParts(
        trajectories=trajectories,
        engines=engines or dict.fromkeys(ROLES, ENGINE),
        prompt_tokens=dict.fromkeys(ROLES, prompt_tokens),
        learning_gpu_s=learning_gpu_s,
        together=together,
        overhead_s=overhead_s,
    )


@pytest.mark.parametrize("separate", [False, True])
def test_one_trajectory_takes_its_tokens(separate):
    seconds, busy = generate(parts([[100, 50]]), 2, separate=separate)
    assert seconds == busy == pytest.approx(150 * 0.011)


def test_nothing_idles_when_all_lengths_are_equal():
    step = simulate(parts([[100, 50]] * 64, learning_gpu_s=8.0), 8, separate=False, one_step_off=False)
    assert step.idle == pytest.approx(0)
    # eight rows on each GPU
    assert step.generating_s == pytest.approx(150 * 0.018)
    assert step.seconds == pytest.approx(150 * 0.018 + 1)
    assert step.tokens_per_s == pytest.approx(64 * 150 / step.seconds)


@pytest.mark.parametrize("turns", [[100, 50], [30, 70, 30, 70]])
def test_separate_pools_idle_half_the_time_when_turns_go_in_step(turns):
    step = simulate(parts([turns] * 64, learning_gpu_s=8.0), 8, separate=True, one_step_off=False)
    assert step.idle == pytest.approx(0.5)
    assert step.learning_s == pytest.approx(8 / 4)


def test_in_separate_pools_both_learners_learn_at_once():
    step = simulate(parts([[1, 1]], learning_gpu_s=8.0, together=True), 8, separate=True, one_step_off=False)
    assert step.learning_s == pytest.approx(1)


def test_trajectories_out_of_step_keep_both_pools_busy():
    # the second half begins where the first half's partner speaks: the pools swap
    same = [[100, 100] * 8] * 8
    apart = [*[[100, 100] * 8] * 4, *[[1, 99, *[100, 100] * 7]] * 4]
    in_step, swapped = (simulate(parts(load), 2, separate=True, one_step_off=False).idle for load in (same, apart))
    assert in_step == pytest.approx(0.5)
    assert swapped < 0.2


def test_two_engines_of_one_gpu_decode_in_turn():
    slow = {Role.LONG: ENGINE, Role.SHORT: Engine(latency_s=0.03, row_s=0.001, prompt_token_s=0.0)}
    # the first trajectory is at its short turn while the second one is at its long one
    seconds, _ = generate(parts([[1, 100], [101, 1]], engines=slow), 1, separate=False)
    both = 100 * (0.011 + 0.031)
    assert seconds == pytest.approx(0.012 + both + 0.031)


def with_prompts(prompt_token_s=0.002):
    return dict.fromkeys(ROLES, Engine(latency_s=0.01, row_s=0.001, prompt_token_s=prompt_token_s))


@pytest.mark.parametrize("separate", [False, True])
def test_each_token_of_a_trajectory_is_computed_once_as_prompt(separate):
    load = parts([[100, 50, 30, 10]], engines=with_prompts(), prompt_tokens=7)
    seconds, busy = generate(load, 2, separate=separate)
    # both roles read the problem, and the partner's turns: the last turn is read by nobody
    assert seconds == busy == pytest.approx(190 * 0.011 + (2 * 7 + 180) * 0.002)


def test_a_gpu_decodes_nothing_while_it_computes_prompts():
    load = parts([[100]] * 4, engines=with_prompts(), prompt_tokens=50)
    together, apart = (generate(load, gpus, separate=False)[0] for gpus in (1, 4))
    assert together == pytest.approx(4 * 50 * 0.002 + 100 * 0.014)
    assert apart == pytest.approx(50 * 0.002 + 100 * 0.011)


def test_a_prompt_holds_up_the_rows_that_are_there():
    # the short engine's prompt of 1000 + 1 tokens comes after the first token of both long turns
    load = parts([[1, 1], [101]], engines=with_prompts(), prompt_tokens=1000)
    seconds, _ = generate(load, 1, separate=False)
    # two long prompts; a step of two rows; a prompt; a step of both engines; 99 steps of one row
    assert seconds == pytest.approx(2 * 2.0 + 0.012 + 1001 * 0.002 + 0.022 + 99 * 0.011)


def test_one_step_off_takes_as_long_as_the_slower_half():
    work = parts([[100, 50]] * 64, learning_gpu_s=20.0, overhead_s=3.0)
    step = simulate(work, 8, separate=False, one_step_off=True)
    assert step.seconds == pytest.approx(max(step.generating_s, step.learning_s) + 3)


def test_rows_that_cost_nothing_do_not_get_faster_with_more_gpus():
    engines = dict.fromkeys(ROLES, Engine(latency_s=0.01, row_s=0.0, prompt_token_s=0.0))
    few, many = (generate(parts([[100]] * 64, engines=engines), gpus, separate=False)[0] for gpus in (4, 64))
    assert few == pytest.approx(many) == pytest.approx(1.0)


def test_twice_the_trajectories_on_twice_the_gpus_take_as_long():
    once, twice = (
        simulate(parts([[100, 50]] * count, learning_gpu_s=count), gpus, separate=False, one_step_off=False)
        for count, gpus in ((64, 8), (128, 16))
    )
    assert once.seconds == pytest.approx(twice.seconds)


def test_long_tails_idle():
    drawn = draw_trajectories(512, tokens=1000, spread=0.8, turns=2.5, long_share=0.6, most=8000)
    assert simulate(parts(drawn), 8, separate=False, one_step_off=False).idle > 0.1


def test_drawn_trajectories_are_as_asked_for():
    drawn = draw_trajectories(4000, tokens=1000, spread=0.6, turns=3.0, long_share=0.6, most=100_000)
    assert statistics.mean(map(sum, drawn)) == pytest.approx(1000, rel=0.05)
    assert statistics.mean(map(len, drawn)) == pytest.approx(3.0, rel=0.05)
    assert sum(sum(one[::2]) for one in drawn) / sum(map(sum, drawn)) == pytest.approx(0.6, rel=0.01)
    assert {len(one) % 2 for one in drawn} == {0}
    assert max(map(sum, draw_trajectories(500, tokens=900, spread=1, turns=2, long_share=0.5, most=1000))) <= 1001
