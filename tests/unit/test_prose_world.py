"""The prose world: splits, arithmetic, phrases, thoughts that the chunker finds, and the files that are written."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward import match_answer

from verl_longshort.base.files import read_records
from verl_longshort.cli import main
from verl_longshort.data.gaps import concise_forms
from verl_longshort.data.records import Chunked, read_stage
from verl_longshort.world import prose
from verl_longshort.world.make_world import WORLDS, Sizes, make_world
from verl_longshort.world.prose import (
    WordProblem,
    chain_of_thought,
    concise_solution,
    draw_word_problem,
    generate_word_problems,
    steps_worked,
)
from verl_longshort.world.world import Split, ThoughtKind

SEEDS = st.integers(0, 10**6)
SUM = re.compile(r"(\d+(?: [+-] \d+)+) = (\d+)")
WORKING = (ThoughtKind.HARD, ThoughtKind.EASY)


def problem_of(seed: int) -> WordProblem:
    return draw_word_problem(random.Random(seed))


def written_sums(text: str) -> list[tuple[str, str]]:
    return SUM.findall(text)


@given(SEEDS)
def test_the_answer_is_the_start_with_every_amount(seed: int) -> None:
    problem = problem_of(seed)
    assert problem.answer == str(problem.start + sum(sum(event.amounts) for event in problem.events))
    assert min(problem.counts) > 0
    assert 2 <= len(problem.events) <= 3


@given(SEEDS)
def test_the_text_tells_all_numbers_in_order(seed: int) -> None:
    problem = problem_of(seed)
    told = [int(number) for number in re.findall(r"\d+", problem.text)]
    expected = [problem.start, *(abs(amount) for event in problem.events for amount in event.amounts)]
    if problem.others is not None:
        assert problem.others[0] in told
    rest = iter(told)
    assert all(number in rest for number in expected)
    assert len(told) == len(expected) + (problem.others is not None)


@given(SEEDS)
def test_a_chain_quotes_the_story_in_order(seed: int) -> None:
    problem = problem_of(seed)
    thoughts = chain_of_thought(problem, random.Random(seed))
    quoted = [sentence for thought in thoughts for sentence in re.findall(r'"([^"]*)"', thought.text)]
    assert quoted == list(problem.sentences)
    assert " ".join(problem.sentences) == problem.text


@given(SEEDS)
def test_every_written_calculation_is_right(seed: int) -> None:
    problem = problem_of(seed)
    chain = "\n\n".join(thought.text for thought in chain_of_thought(problem, random.Random(seed)))
    for text in (chain, concise_solution(problem)):
        sums = written_sums(text)
        assert sums
        assert all(sum(map(int, re.findall(r"[+-]?\d+", left.replace(" ", "")))) == int(right) for left, right in sums)
        assert match_answer(text, problem.answer, timeout_s=5)


@given(SEEDS)
def test_each_step_has_one_working_thought_of_its_kind(seed: int) -> None:
    problem = problem_of(seed)
    thoughts = chain_of_thought(problem, random.Random(seed))
    work = [thought for thought in thoughts if thought.kind in WORKING]
    assert [thought.step for thought in work] == list(range(len(problem.events)))
    assert [k for k, thought in enumerate(work) if thought.kind == ThoughtKind.HARD] == list(problem.hard_steps)
    assert (problem.others is not None) == any(thought.kind == ThoughtKind.DETOUR for thought in thoughts)


@given(SEEDS, st.integers(0, 20))
def test_the_concise_rest_continues_any_prefix(seed: int, cut: int) -> None:
    problem = problem_of(seed)
    prefix = chain_of_thought(problem, random.Random(seed))[:cut]
    done = [thought.concise for thought in prefix if thought.kind in WORKING]
    assert len(done) == steps_worked(prefix)
    assert " ".join([*done, concise_solution(problem, from_step=len(done))]) == concise_solution(problem)


def test_splits_share_no_problem_and_are_reproducible() -> None:
    sets = [{p.text for p in generate_word_problems(seed=3, count=200, split=split)} for split in Split]
    assert {p.text for p in generate_word_problems(seed=3, count=200, split=Split.TRAIN)} == sets[0]
    assert all(len(texts) == 200 for texts in sets)
    assert len(set.union(*sets)) == 600


def test_the_test_split_has_phrases_of_its_own() -> None:
    kinds = list(vars(prose._SEEN))
    for kind in kinds:
        assert not set(getattr(prose._SEEN, kind)) & set(getattr(prose._HELD_OUT, kind))
    questions = {
        split: {
            problem.text.rpartition(". ")[2].split()[0]
            for problem in generate_word_problems(seed=0, count=50, split=split)
        }
        for split in Split
    }
    assert questions == {Split.TRAIN: {"How"}, Split.VALIDATION: {"How"}, Split.TEST: {"What", "Count"}}


def test_too_small_a_world_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    always = generate_word_problems(seed=0, count=1, split=Split.TRAIN)[0]
    monkeypatch.setattr(prose, "draw_word_problem", lambda rng: always)
    with pytest.raises(ValueError, match="lower the count"):
        generate_word_problems(seed=0, count=2, split=Split.TRAIN)


@pytest.fixture(scope="module")
def chunked(tmp_path_factory: pytest.TempPathFactory) -> list[Chunked]:
    """Chains of the world as the recipe makes them: its files, `prepare chains`, `chunk` by the rules for prose."""
    folder = tmp_path_factory.mktemp("prose")
    make_world(folder, 0, Sizes(train=40, val=5, test=5, chains=60), kind="prose")
    commands = (
        f"prepare chains longshort.source={folder}/chains.jsonl longshort.chains={folder}/chains.jsonl"
        f" longshort.problems=40 longshort.held_out=[{folder}/val.parquet,{folder}/test.parquet]"
        f" longshort.similarity=1.0 longshort.output={folder}/prepared.jsonl",
        f"chunk longshort.input={folder}/prepared.jsonl longshort.output={folder}/thoughts.jsonl",
    )
    for command in commands:
        result = CliRunner().invoke(main, command.split())
        assert result.exit_code == 0, result.output
    return list(read_stage(folder / "thoughts.jsonl", Chunked, key=""))


def test_the_rules_for_prose_find_the_generators_thoughts(chunked: list[Chunked]) -> None:
    assert len(chunked) == 40
    for record in chunked:
        assert record.texts == [label["text"] for label in record.labels]


def test_the_labels_give_the_short_forms(chunked: list[Chunked]) -> None:
    for record in chunked:
        assert concise_forms(record) == [label["concise"] for label in record.labels]


def test_the_files_are_those_of_the_miniature_world(tmp_path: Path) -> None:
    sizes = Sizes(train=20, val=5, test=5, chains=10)
    for kind in WORLDS:
        make_world(tmp_path / kind, 0, sizes, kind=kind)
        make_world(tmp_path / f"{kind} again", 0, sizes, kind=kind)
    for name in ("train.parquet", "val.parquet", "test.parquet"):
        counter, told = (pd.read_parquet(tmp_path / kind / name) for kind in WORLDS)
        assert list(counter.columns) == list(told.columns)
        assert len(counter) == len(told)
        assert (tmp_path / "prose" / name).read_bytes() == (tmp_path / "prose again" / name).read_bytes()
    chains = [read_records(tmp_path / kind / "chains.jsonl", key="", columns=()) for kind in WORLDS]
    assert [list(records[0]) for records in chains] == [list(chains[0][0])] * 2


def test_the_command_knows_both_worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verl_longshort.world.make_world.Sizes", lambda: Sizes(train=4, val=2, test=2, chains=2))
    result = CliRunner().invoke(main, ["world", "--out", str(tmp_path / "out"), "--kind", "prose"])
    assert result.exit_code == 0, result.output
    (first, _) = (json.loads(line) for line in (tmp_path / "out/chains.jsonl").read_text().splitlines())
    kinds = Counter(thought["kind"] for thought in first["thoughts"])
    assert kinds["restate"] == kinds["final"] == 1
    assert CliRunner().invoke(main, ["world", "--out", str(tmp_path / "out"), "--kind", "sums"]).exit_code == 2
