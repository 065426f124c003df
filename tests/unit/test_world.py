"""The miniature world: splits, arithmetic, thoughts and the tokenizer that covers them."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from verl_longshort.world.tiny_tokenizer import build_tokenizer
from verl_longshort.world.world import (
    Difficulty,
    Problem,
    Split,
    ThoughtKind,
    concise,
    draw_problem,
    generate_problems,
    long_cot,
    steps_done,
)

SEEDS = st.integers(0, 10**6)
SUM = re.compile(r"(\d) \+ (\d) = (\d)")


def problem_of(seed: int) -> Problem:
    return draw_problem(random.Random(seed), Difficulty())


@given(SEEDS)
def test_answer_is_the_start_plus_every_digit(seed: int) -> None:
    digits = [int(word) for word in problem_of(seed).text.split() if word.isdigit()]
    assert problem_of(seed).answer == str(sum(digits) % 10)


@given(SEEDS)
def test_every_written_sum_is_right(seed: int) -> None:
    problem = problem_of(seed)
    chain = " ".join(thought.text for thought in long_cot(problem, random.Random(seed)))
    sums = SUM.findall(chain)
    assert sums
    assert all((int(left) + int(right)) % 10 == int(total) for left, right, total in sums)
    assert f"so the answer is {problem.answer} ." in chain


@given(SEEDS)
def test_concise_forms_of_the_thoughts_join_to_the_concise_solution(seed: int) -> None:
    problem = problem_of(seed)
    solving = (ThoughtKind.HARD, ThoughtKind.EASY, ThoughtKind.FINAL)
    thoughts = [t for t in long_cot(problem, random.Random(seed)) if t.kind in solving]
    assert " ".join(thought.concise for thought in thoughts) == concise(problem)


@given(SEEDS, st.integers(0, 20))
def test_concise_rest_continues_any_prefix(seed: int, cut: int) -> None:
    problem = problem_of(seed)
    prefix = long_cot(problem, random.Random(seed))[:cut]
    done = [thought.concise for thought in prefix if thought.kind in (ThoughtKind.HARD, ThoughtKind.EASY)]
    assert len(done) == steps_done(prefix)
    assert " ".join([*done, concise(problem, from_step=len(done))]) == concise(problem)


@given(SEEDS)
def test_each_step_has_one_working_thought_of_its_kind(seed: int) -> None:
    problem = problem_of(seed)
    work = [t for t in long_cot(problem, random.Random(0)) if t.kind in (ThoughtKind.HARD, ThoughtKind.EASY)]
    assert [thought.step for thought in work] == list(range(len(problem.steps)))
    assert [k for k, thought in enumerate(work) if thought.kind == ThoughtKind.HARD] == list(problem.hard_steps)


@given(SEEDS)
def test_tokenizer_gives_back_every_text(seed: int) -> None:
    tokenizer, problem = build_tokenizer(), problem_of(seed)
    for thought in long_cot(problem, random.Random(seed)):
        ids = tokenizer.encode(thought.text, add_special_tokens=False)
        assert tokenizer.decode(ids) == thought.text
        assert len(ids) == len(thought.text.split())


def test_splits_share_no_problem_and_are_reproducible() -> None:
    sets = [{p.text for p in generate_problems(seed=3, count=200, split=split)} for split in Split]
    again = {p.text for p in generate_problems(seed=3, count=200, split=Split.TRAIN)}
    assert all(len(texts) == 200 for texts in sets)
    assert len(set.union(*sets)) == 600
    assert again == sets[0]


def test_too_small_a_world_is_reported() -> None:
    tiny = Difficulty(steps=(1, 1), hard_weights=(1.0,))
    with pytest.raises(ValueError, match="lower the count"):
        generate_problems(seed=0, count=500, split=Split.TRAIN, difficulty=tiny)


def test_saved_tokenizer_renders_the_prompt(tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    chat = [{"role": "system", "content": ""}, {"role": "user", "content": "start 7 ; a 5 ?"}]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert rendered == "<bos> start 7 ; a 5 ?"
    ids = tokenizer.encode(rendered + " <think> okay </think> <eos>", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "start 7 ; a 5 ? <think> okay </think>"


def test_unknown_word_is_an_error() -> None:
    with pytest.raises(Exception, match="UNK"):
        build_tokenizer().encode("banana")
