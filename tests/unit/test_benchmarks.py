"""Problems from files with the fields of the real benchmarks, and from the Hub, which is a folder here."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.benchmark_files import FILES, BenchmarkFile, gpqa_row, write_rows
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.errors import UserError

from verl_longshort.config.compose import compose_config
from verl_longshort.config.pair import plain_dict
from verl_longshort.problems import benchmarks
from verl_longshort.problems.benchmarks import BENCHMARKS, Benchmark, HubFile
from verl_longshort.problems.reader import answer_text
from verl_longshort.problems.settings import ProblemSettings

FIXED = ["longshort.name=x", "longshort.output_dir=x"]


def load(*overrides: str) -> list[Benchmark]:
    given = [*FIXED, *(f"longshort.{text}" for text in overrides)]
    block = plain_dict(compose_config("eval", given).longshort)
    return ProblemSettings.parse({key: block[key] for key in ProblemSettings.model_fields}).load_benchmarks()


def full(name: str, folder: Path) -> Path:
    """The benchmark `name` with as many rows as the real one, each another problem."""
    hub = BENCHMARKS[name]
    path = folder / f"{name}{Path(hub.file).suffix}"
    if name == "gpqa_diamond":
        rows = [gpqa_row(number) for number in range(1, hub.problems + 1)]
    else:
        (row, *_), field = FILES[name].rows, "question" if name == "amc23" else "problem"
        rows = [{**row, field: f"{row[field]} ({number})"} for number in range(hub.problems)]
    write_rows(path, rows)
    return path


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_files_of_real_schemas_are_read(tmp_path: Path, file: BenchmarkFile) -> None:
    (benchmark,) = load(f"data={file.write(tmp_path)}")
    assert [(problem.text, problem.ground_truth) for problem in benchmark.problems] == file.expected
    assert benchmark.name == Path(file.file).stem
    assert benchmark.origin["problems"] == len(file.rows)
    json.dumps([dict(problem.extra) for problem in benchmark.problems])


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv"])
def test_every_kind_of_file_is_read(tmp_path: Path, kind: str) -> None:
    path = FILES["math500"].write(tmp_path, f"mine{kind}")
    (benchmark,) = load(f"data={path}")
    (problem,) = benchmark.problems
    assert (problem.text, problem.ground_truth) == FILES["math500"].expected[0]
    assert problem.extra["unique_id"] == "test/precalculus/807.json"


def test_a_json_file_may_hold_one_row_per_line(tmp_path: Path) -> None:
    path = FILES["aime25_question"].write(tmp_path)
    (benchmark,) = load(f"data={path.rename(path.with_suffix('.json'))}")
    assert len(benchmark.problems) == 2


@given(st.integers(-(10**12), 10**12))
def test_whole_numbers_of_any_type_are_the_same_answer(number: int) -> None:
    assert {answer_text(value, "answer") for value in (number, float(number), str(number))} == {str(number)}


@pytest.mark.parametrize("value", [None, True, float("nan"), float("inf"), "", "  ", "####", ["4"], {"a": 4}])
def test_what_is_no_answer_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="'answer' is"):
        answer_text(value, "answer")


def test_unknown_fields_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    write_rows(path, [{"exercise": "2+2?", "result": 4}])
    with pytest.raises(UserError) as caught:
        load(f"data={path}")
    assert str(caught.value) == (
        f"longshort.data = {path}: fields of no known benchmark (it has: exercise, result); name them with "
        "longshort.fields.problem=<field> and longshort.fields.answer=<field>"
    )
    (benchmark,) = load(f"data={path}", "fields.problem=exercise", "fields.answer=result")
    assert benchmark.problems[0].ground_truth == "4"


FIELD_MISTAKES = {
    "fields.answer=result": "longshort.fields.problem = None: is needed",
    "fields.problem=exercise": "longshort.fields.answer = None: give it, or longshort.fields.solution",
    "fields.problem=task,fields.answer=result": "longshort.fields = task: ",
}


@pytest.mark.parametrize(("given_fields", "message"), FIELD_MISTAKES.items(), ids=FIELD_MISTAKES)
def test_mistakes_in_fields(tmp_path: Path, given_fields: str, message: str) -> None:
    path = tmp_path / "mine.jsonl"
    write_rows(path, [{"exercise": "2+2?", "result": 4}])
    with pytest.raises(UserError) as caught:
        load(f"data={path}", *given_fields.split(","))
    assert str(caught.value).startswith(message)


BAD_ROWS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no answer": ([{"problem": "a", "answer": None}], "row 2: 'answer' is missing or empty"),
    "no box": ([{"problem": "a", "solution": "4"}], r"row 2: has no answer, and 'solution' has no \boxed{}"),
    "no problem": ([{"problem": " ", "answer": 4}], "row 2: 'problem' is missing or empty"),
    "a number": ([{"problem": 3, "answer": 4}], "row 2: 'problem' is not a text"),
    "a list": ([{"problem": "a", "answer": ["4"]}], "row 2: 'answer' is ['4']"),
    "a long answer": ([{"problem": "a", "answer": "4" * 3000}], "row 2: ground_truth = "),
}


@pytest.mark.parametrize(("rows", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    path = tmp_path / "mine.jsonl"
    good = {"problem": "fine", "answer": "4", "solution": r"\boxed{4}"}
    write_rows(path, [{key: good[key] for key in rows[0]}, *rows])
    with pytest.raises(UserError) as caught:
        load(f"data={path}")
    assert f"longshort.data = {path}, {message}" in str(caught.value)


def test_named_benchmarks_are_read_from_a_folder(tmp_path: Path) -> None:
    sizes = {"math500": 500, "aime24": 30, "aime25": 30, "gpqa_diamond": 198, "amc23": 40}
    for name in sizes:
        full(name, tmp_path)
    loaded = load(f"benchmarks=[{','.join(sizes)}]", f"benchmark_dir={tmp_path}")
    assert {one.name: len(one.problems) for one in loaded} == sizes
    assert [one.name for one in loaded] == list(sizes) == list(BENCHMARKS)[: len(sizes)]
    assert loaded[0].origin["sha256"] == benchmarks._digest(tmp_path / "math500.jsonl")
    (first,) = load("benchmarks=[aime24]", f"benchmark_dir={tmp_path}", "limit=5")
    assert len(first.problems) == first.origin["problems"] == 5


def test_one_benchmark_may_have_a_path_of_its_own(tmp_path: Path) -> None:
    path = full("aime25", tmp_path).rename(tmp_path / "mine.jsonl")
    (benchmark,) = load("benchmarks=[aime25]", f"benchmark_files.aime25={path}", "benchmark_dir=/nowhere")
    assert (benchmark.title, benchmark.origin["file"]) == ("AIME25", "mine.jsonl")


def test_a_benchmark_of_another_size_is_refused(tmp_path: Path) -> None:
    FILES["aime25"].write(tmp_path, "aime25.jsonl")
    with pytest.raises(UserError, match=r"longshort\.benchmark_dir = .* has 1 problems, AIME25 has 30"):
        load("benchmarks=[aime25]", f"benchmark_dir={tmp_path}")


def test_a_benchmark_that_the_folder_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no amc23\.jsonl or \.json or \.parquet or \.csv"):
        load("benchmarks=[amc23]", f"benchmark_dir={tmp_path}")


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [FILES["aime25"].write(tmp_path / folder) for folder in "ab"]
    with pytest.raises(UserError, match=r"longshort\.data = test: is named twice"):
        load(f"data=[{paths[0]},{paths[1]}]")


def test_the_hub_is_asked_for_the_pinned_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[HubFile] = []

    def fetch(hub: HubFile) -> Path:
        asked.append(hub)
        return full("aime24", tmp_path)

    monkeypatch.setattr(benchmarks, "fetch", fetch)
    (benchmark,) = load("benchmarks=[aime24]")
    assert asked == [BENCHMARKS["aime24"]]
    origin = {key: benchmark.origin[key] for key in ("repository", "revision", "problems")}
    revision = "2fe88a2f1091d5048c0f36abc874fb997b3dd99a"
    assert origin == {"repository": "HuggingFaceH4/aime_2024", "revision": revision, "problems": 30}


@pytest.mark.parametrize(
    "error",
    [
        GatedRepoError("401: gated", response=httpx.Response(401, request=httpx.Request("GET", "https://hub"))),
        LocalEntryNotFoundError("no connection"),
        ConnectionError(),
        httpx.ReadError("the connection broke"),
    ],
)
def test_a_hub_that_does_not_answer_is_named(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(hub: HubFile) -> Path:
        raise error

    monkeypatch.setattr(benchmarks, "fetch", fetch)
    with pytest.raises(UserError) as caught:
        load("benchmarks=[gpqa_diamond]")
    message = str(caught.value)
    assert message.startswith("longshort.benchmarks = gpqa_diamond: Idavidrein/gpqa cannot be fetched (")
    assert message.endswith("give longshort.benchmark_dir=<folder with gpqa_diamond.csv>")


def test_what_is_asked_may_be_wrapped(tmp_path: Path) -> None:
    path = FILES["aime25"].write(tmp_path)
    (benchmark,) = load(f"data={path}", r"template='{problem} Put the answer in \boxed{}.'")
    assert benchmark.problems[0].text.endswith("$b>9$. Put the answer in \\boxed{}.")


def test_pinned_revisions_are_whole_hashes() -> None:
    assert all(len(hub.revision) == 40 and int(hub.revision, 16) for hub in BENCHMARKS.values())


def test_a_new_benchmark_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = HubFile(title="HMMT", repository="owner/hmmt", file="test.jsonl", revision="0" * 40, problems=2)
    monkeypatch.setitem(BENCHMARKS, "hmmt", hub)
    path = FILES["aime25_question"].write(tmp_path)
    (benchmark,) = load("benchmarks=[hmmt]", f"benchmark_files.hmmt={path}")
    assert (benchmark.title, len(benchmark.problems)) == ("HMMT", 2)
    monkeypatch.setattr(benchmarks, "fetch", lambda asked: path if asked is hub else None)
    (fetched,) = load("benchmarks=[hmmt]")
    assert (fetched.problems, fetched.origin["repository"]) == (benchmark.problems, "owner/hmmt")


def test_the_file_of_an_unknown_benchmark_is_refused() -> None:
    with pytest.raises(UserError, match=r"longshort\.benchmark_files\.aime42 = x: unknown benchmark"):
        load("benchmarks=[aime24]", "benchmark_files.aime42=x")


def test_a_field_of_ones_own_may_have_the_name_of_verls(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    write_rows(path, [{"prompt": "2+2?", "result": 4}])
    (benchmark,) = load(f"data={path}", "fields.problem=prompt", "fields.answer=result")
    assert (benchmark.problems[0].text, benchmark.problems[0].ground_truth) == ("2+2?", "4")


def test_the_first_row_may_lack_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    first = {"problem": "1+1?", "answer": None, "solution": r"It is \boxed{2}."}
    write_rows(path, [first, {"problem": "2+2?", "answer": "4", "solution": "see above"}])
    (benchmark,) = load(f"data={path}")
    assert [problem.ground_truth for problem in benchmark.problems] == ["2", "4"]


def test_what_else_a_row_has_may_be_of_any_type(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    write_rows(path, [{"problem": "2+2?", "answer": 4, "extra_info": "from a book"}])
    (benchmark,) = load(f"data={path}")
    assert benchmark.problems[0].extra == {}
