"""Problems for RL from rows of the real schemas, apart from those held out."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers.tiny_tokenizers import byte_level
from hypothesis import given
from hypothesis import strategies as st

from verl_longshort.base.dry_run import VARIABLE, DryRun
from verl_longshort.cli import main
from verl_longshort.problems import sources
from verl_longshort.problems.overlap import KnownProblems, Likeness, shingles, words

SUBJECTS = ("algebra", "geometry", "number theory", "probability")
NOUNS = [
    *("apples", "bridges", "candles", "dragons", "engines"),
    *("falcons", "gardens", "hammers", "islands", "jackets"),
]
VERBS = ["adds", "borrows", "counts", "divides"]


def text(i: int) -> str:
    """Problems that have few word pairs in common."""
    noun, other = NOUNS[i % 10], NOUNS[(i // 10 + 3 * i + 1) % 10]
    return f"{VERBS[i % 4]} {noun} {i} {other} {i * i} {VERBS[i // 4 % 4]} ${i}^{{{i}}}$"


def math_row(i: int, **changes: Any) -> dict[str, Any]:
    """The schema of MATH: no answer field, a solution with a box."""
    row = {
        "problem": text(i),
        "level": f"Level {i % 5 + 1}",
        "type": SUBJECTS[i % 4],
        "solution": f"First \\boxed{{0}}, then $\\boxed{{\\frac{{{i}}}{{\\sqrt{{7}}}}}}$.",
    }
    return {**row, **changes}


def math500_row(i: int) -> dict[str, Any]:
    return {
        "problem": text(i),
        "solution": "...",
        "answer": str(i),
        "subject": "Algebra",
        "level": 2,
        "unique_id": f"test/algebra/{i}.json",
    }


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def run(tmp_path):
    given = {
        "longshort.source": write(tmp_path / "train.jsonl", [math_row(i) for i in range(60)]),
        "longshort.held_out": f"[{write(tmp_path / 'test.jsonl', [math500_row(i) for i in range(90, 95)])}]",
        "longshort.output_dir": tmp_path / "out",
        "longshort.val_problems": 10,
    }

    def call(**changes: Any):
        overrides = {**given, **{f"longshort.{key}": value for key, value in changes.items()}}
        arguments = ["prepare", "problems", *(f"{key}={value}" for key, value in overrides.items())]
        return CliRunner().invoke(main, arguments)

    return call


def rows_of(path: Path) -> list[dict[str, Any]]:
    return pd.read_parquet(path).to_dict("records")


def test_rows_are_what_verl_reads(run, tmp_path):
    result = run()
    assert result.exit_code == 0, result.output
    train, val = rows_of(tmp_path / "out/train.parquet"), rows_of(tmp_path / "out/val.parquet")
    assert (len(train), len(val)) == (50, 10)
    row = train[0]
    number = int(row["extra_info"]["id"].rsplit("#", 1)[1]) - 1
    assert list(row["prompt"]) == [{"role": "user", "content": text(number)}]
    assert row["data_source"] == "math"
    assert row["reward_model"] == {"style": "rule", "ground_truth": f"\\frac{{{number}}}{{\\sqrt{{7}}}}"}
    assert row["extra_info"]["level"] == number % 5 + 1
    assert row["extra_info"]["subject"] == SUBJECTS[number % 4]
    assert [r["extra_info"]["index"] for r in train] == list(range(50))
    assert {r["extra_info"]["split"] for r in val} == {"val"}


def test_preflight_takes_them(run, tmp_path):
    from verl_longshort.verl_plugin.checks.data_checks import read_split

    run()
    split = read_split(str(tmp_path / "out/train.parquet"), "data.train_files", agent_loop="longshort")
    assert len(split.problems) == 50


def test_the_same_settings_give_the_same_split_in_any_order(run, tmp_path):
    run()
    first = {row["prompt"][0]["content"] for row in rows_of(tmp_path / "out/val.parquet")}
    shuffled = write(tmp_path / "other.jsonl", [math_row(i) for i in reversed(range(60))])
    run(source=shuffled)
    assert {row["prompt"][0]["content"] for row in rows_of(tmp_path / "out/val.parquet")} == first
    run(seed=1)
    assert {row["prompt"][0]["content"] for row in rows_of(tmp_path / "out/val.parquet")} != first


def test_what_is_held_out_is_dropped_and_counted(run, tmp_path):
    rows = [math_row(i) for i in range(60)]
    long = "a train leaves the old station at noon and reaches the far city after 5 hours how fast is it"
    held = [math500_row(3), {**math500_row(0), "problem": f"{long}?"}]
    rows.append(math_row(0, problem=f"{long} then?"))
    rows[4]["problem"] = f"  {text(3).upper()}. "
    rows[3]["problem"] = "something else entirely"
    result = run(source=write(tmp_path / "some.jsonl", rows), held_out=f"[{write(tmp_path / 'held.jsonl', held)}]")
    assert result.exit_code == 0, result.output
    counts = json.loads((tmp_path / "out/card.json").read_text())["counts"]
    assert counts["dropped: held out, same"] == 1
    assert counts["dropped: held out, near"] == 1
    assert counts["held out"] == 2
    dropped = [json.loads(line) for line in (tmp_path / "out/dropped.jsonl").read_text().splitlines()]
    assert "held.jsonl, record 1" in dropped[0]["detail"]


def test_training_and_validation_share_nothing(run, tmp_path):
    stem = "a farmer sells ripe {} at the market for five coins each and buys a lamp for nine what is left"
    rows = [math_row(i) for i in range(40)]
    rows += [math_row(i, problem=stem.format(noun)) for i, noun in enumerate(NOUNS)]
    run(source=write(tmp_path / "some.jsonl", rows), val_problems=25)
    val = KnownProblems(0.6)
    for row in rows_of(tmp_path / "out/val.parquet"):
        val.add(row["prompt"][0]["content"], "val")
    train = rows_of(tmp_path / "out/train.parquet")
    assert train
    assert not any(val.match(row["prompt"][0]["content"]) for row in train)
    # the ten that are alike are on one side
    counts = json.loads((tmp_path / "out/card.json").read_text())["counts"]
    assert counts["train"] + counts["val"] + sum(v for k, v in counts.items() if "dropped" in k) == len(rows)


def test_a_problem_without_an_answer_is_dropped_with_the_reason(run, tmp_path):
    rows = [math_row(i) for i in range(30)]
    rows[0]["solution"] = "Left to the reader."
    rows[1]["solution"] = r"That makes \boxed 2 of them."
    rows[2]["problem"] = rows[5]["problem"]
    run(source=write(tmp_path / "some.jsonl", rows))
    counts = json.loads((tmp_path / "out/card.json").read_text())["counts"]
    assert counts["dropped: no final answer"] == 1
    assert counts["dropped: twice in the source"] == 1


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_other_kinds_of_files(run, tmp_path, suffix):
    known = {"problem_source": "augmented_math"}
    rows = [{"question": text(i), "expected_answer": str(i), **known} for i in range(30)]
    path = tmp_path / f"some.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps(rows))
    else:
        pd.DataFrame(rows).to_parquet(path)
    assert run(source=path).exit_code == 0
    assert rows_of(tmp_path / "out/train.parquet")[0]["extra_info"]["subject"] == "augmented_math"


def test_a_data_set_of_the_hub(run, tmp_path, monkeypatch):
    asked = []

    def hub_rows(name, config, split):
        asked.append((name, config, split))
        return [math_row(i) for i in range(30)]

    monkeypatch.setattr(sources, "hub_rows", hub_rows)
    sets = "['EleutherAI/hendrycks_math:algebra@train','EleutherAI/hendrycks_math:geometry@train']"
    result = run(source=sets, held_out="[]")
    assert result.exit_code == 0, result.output
    assert asked[0] == ("EleutherAI/hendrycks_math", "algebra", "train")
    # the second one's problems are the first one's
    counts = json.loads((tmp_path / "out/card.json").read_text())["counts"]
    assert (counts["read"], counts["dropped: twice in the source"]) == (60, 30)


def fails(result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line.strip()]
    assert len(lines) == 1, result.output
    for part in parts:
        assert part in lines[0]


def test_mistakes_are_one_line(run, tmp_path, monkeypatch):
    fails(run(source="nowhere/at/all"), "longshort.source", "no such file")
    fails(run(source=tmp_path / "none.jsonl"), "longshort.source", "none.jsonl")
    fails(run(val_problems=0), "longshort.val_problems")
    fails(run(val_problems=60), "longshort.val_problems", "60 of 60")
    fails(run(similarity=2), "longshort.similarity")
    fails(run(held_out="[1]"), "longshort.held_out")
    fails(run(valproblems=3), "longshort.valproblems", "val_problems")
    bad = write(tmp_path / "bad.jsonl", [math_row(0), {"text": "?"}])
    fails(run(source=bad), "bad.jsonl, record 2", "problem")
    no_answer = write(tmp_path / "bare.jsonl", [{"problem": "?"}])
    fails(run(source=no_answer), "bare.jsonl, record 1", "solution")

    def offline(*_: Any) -> Any:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(sources, "hub_rows", offline)
    fails(run(source="owner/name@train"), "longshort.source", "Couldn't reach the Hub", "give the file")
    assert not (tmp_path / "out").exists()


def test_too_long_problems_are_dropped(run, tmp_path):
    folder = tmp_path / "model"
    byte_level().save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    rows = [math_row(i) for i in range(30)]
    rows[7]["problem"] = text(7) * 20
    source = write(tmp_path / "some.jsonl", rows)
    assert run(source=source, tokenizer=folder, max_problem_tokens=200).exit_code == 0
    counts = json.loads((tmp_path / "out/card.json").read_text())["counts"]
    assert counts["dropped: too long"] == 1


def test_words_are_those_that_matter():
    assert words(r"What is $\dfrac{3}{4}$ of   $x$?") == words(r"what is \frac{3}{4} of x .")
    assert words("3 + 4") != words("3 - 4")


def test_likeness():
    known = KnownProblems(0.5)
    known.add("find the sum of all positive divisors of 60", "A")
    assert known.match("Find the sum of all positive divisors of $60$.").likeness is Likeness.SAME
    assert known.match("find the sum of all positive divisors of 90").likeness is Likeness.NEAR
    assert known.match("how many apples are there") is None


@given(st.text(min_size=1), st.text(min_size=1), st.floats(0.05, 1))
def test_match_is_the_jaccard_index(a, b, least):
    known = KnownProblems(least)
    known.add(a, "a")
    one, other = shingles(a), shingles(b)
    share = len(one & other) / len(one | other)
    match = known.match(b)
    if words(a) == words(b):
        assert match.likeness is Likeness.SAME
    else:
        assert (match is not None) == (share >= least)
        assert match is None or match.similarity == pytest.approx(share)


@pytest.fixture
def dry(tmp_path, monkeypatch):
    """A dry run, in which nothing comes from the Hub."""
    begun = DryRun.prepare(tmp_path / "dry", products=[], gpus_per_node=8)
    monkeypatch.setenv(VARIABLE, str(begun.folder))
    monkeypatch.setattr(sources, "hub_rows", lambda *_: pytest.fail("the Hub is asked"))
    monkeypatch.setattr("verl_longshort.problems.benchmarks.fetch", lambda _: pytest.fail("the Hub is asked"))
    return begun


def test_a_dry_run_knows_how_many_problems_there_will_be(run, tmp_path, dry):
    assert run(held_out="[math500]", tokenizer="owner/name").exit_code == 0
    (needs,) = dry.reported()
    assert [product.records for product in needs.products[:2]] == [50, 10]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val_problems": 61}, "longshort.val_problems = 61: must leave problems to train on; 60 of 60 can be used"),
        ({"source": "unsolved.jsonl"}, "0 of 1 can be used; the first one dropped, unsolved.jsonl"),
        ({"source": "owner/name", "held_out": "[nothing.jsonl]"}, "nothing.jsonl: has no records"),
        ({"held_out": "[aime24]", "benchmark_dir": "."}, "has 1 problems, AIME24 has 30"),
    ],
)
def test_a_dry_run_reads_the_files_that_are_there(run, tmp_path, dry, monkeypatch, changes, words):
    monkeypatch.chdir(tmp_path)
    write(Path("unsolved.jsonl"), [{"problem": text(1)}])
    write(Path("nothing.jsonl"), [])
    write(Path("aime24.jsonl"), [{"problem": text(1), "answer": "33"}])
    result = run(**changes)
    assert result.exit_code == 2
    assert words in result.output


def test_held_out_lists_may_lie_in_one_another(run, tmp_path):
    held = [write(tmp_path / f"{k}.jsonl", [math500_row(k)]) for k in (1, 2)]
    assert run(held_out=f"[['{held[0]}'],{held[1]}]").exit_code == 0
    assert json.loads((tmp_path / "out/card.json").read_text())["counts"]["held out"] == 2
    assert run(held_out=f"[[],{held[1]}]").exit_code == 0
