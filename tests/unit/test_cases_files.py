"""Users' files: what is a ground truth, the content of messages, and what is broken, by input and right outcome."""

import asyncio
import bz2
import codecs
import datetime
import gzip
import io
import json
import lzma
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from helpers.llm_server import completion, in_turn, serve
from longshort_reward.errors import UserError
from pyarrow import parquet
from rich.console import Console

from verl_longshort.base.characters import half_character, whole_characters
from verl_longshort.base.files import read_records, write_jsonl
from verl_longshort.base.journal import RecordFile, read_record_file
from verl_longshort.base.rejected import RejectedError
from verl_longshort.cli import main
from verl_longshort.data.chain_writers import FileWriter
from verl_longshort.data.prepare_problems import prepare_problems
from verl_longshort.data.prepare_settings import TrainingProblemSettings
from verl_longshort.data.records import Chain, read_stage
from verl_longshort.problems.fields import RowError, content_text
from verl_longshort.problems.overlap import words
from verl_longshort.problems.reader import Problem, user_message
from verl_longshort.problems.settings import ProblemSettings
from verl_longshort.verl_plugin.checks.data_checks import read_split

HALF = "\ud83d"
Row = dict[str, Any]


def question(i: int) -> str:
    return f"numeral {i} what is {i * i} plus {i}"


def row(i: int, answer: Any = None, **more: Any) -> Row:
    return {"question": question(i), **({} if answer is None else {"answer": answer}), **more}


def write(path: Path, rows: list[Row]) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def fails(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, (result.output, result.exception)
    lines = [line for line in result.output.splitlines() if line.strip()]
    assert len(lines) == 1, result.output
    for part in parts:
        assert part in lines[0]


def named(*parts: str) -> Any:
    """The error of one line that a command ends with."""
    return pytest.raises(UserError, match=".*".join(map(re.escape, parts)))


def prepare(source: Path, *held_out: Path) -> None:
    """What `longshort prepare problems` does, without the command line's second."""
    block = {
        "source": str(source),
        "output_dir": source.parent / "out",
        "data_source": "math",
        "held_out": [str(path) for path in held_out],
        "benchmark_dir": None,
        "similarity": 0.6,
        "val_problems": 1,
        "tokenizer": None,
        "max_problem_tokens": 1024,
        "limit": None,
        "seed": 0,
    }
    prepare_problems(TrainingProblemSettings.parse(block, "longshort"), Console(file=io.StringIO()))


def trained_on(source: Path) -> list[str]:
    """The problems that `longshort train` reads from a file."""
    return list(read_split(str(source), "data.train_files", agent_loop="longshort").problems)


def asked(source: Path) -> list[Problem]:
    """The problems that `longshort eval` reads from a file."""
    (benchmark,) = ProblemSettings.parse({"data": str(source)}, "longshort").load_benchmarks()
    return list(benchmark.problems)


def prepared(source: Path) -> dict[str, str]:
    """The ground truths by problem."""
    rows = [each for split in ("train", "val") for each in pd.read_parquet(source.parent / f"out/{split}.parquet").iloc]
    return {each["prompt"][0]["content"]: each["reward_model"]["ground_truth"] for each in rows}


def dropped(source: Path) -> list[str]:
    return [json.loads(line)["reason"] for line in (source.parent / "out/dropped.jsonl").read_text().splitlines()]


# ---- ground truths -------------------------------------------------------------------------------

GROUND_TRUTHS: dict[str, tuple[Row, str | None]] = {
    "a solution of GSM8K": ({"answer": f"{'She has 7 eggs. ' * 20}<<7*10+2=72>>\n#### 72"}, "72"),
    "NaN": ({"answer": float("nan")}, None),
    "NaN as a text": ({"answer": "nan"}, None),
    "None as a text": ({"answer": "None"}, None),
    "a list": ({"answer": ["4"]}, None),
    "a list as a text": ({"answer": "['4']"}, None),
    "an object": ({"answer": {"value": 4}}, None),
    "a truth value": ({"answer": True}, None),
    "an empty answer and a solution": ({"answer": "", "solution": r"so \boxed{5}"}, "5"),
    "a blank answer and a solution": ({"answer": " \n", "solution": r"so \boxed{5}"}, "5"),
    "null and a solution": ({"answer": None, "solution": r"so \boxed{5}"}, "5"),
    "NaN and a solution": ({"answer": float("nan"), "solution": r"so \boxed{5}"}, "5"),
    "null without a solution": ({"answer": None}, None),
    "two boxes joined": ({"answer": "", "solution": r"$x = \boxed{3}$ or $x = \boxed{4}$"}, "3, 4"),
    "two boxes apart": ({"answer": "", "solution": r"First \boxed{3}, which gives \boxed{4}."}, "4"),
    "one box twice": ({"answer": "", "solution": r"It is \boxed{3}, that is \boxed{3}"}, "3"),
    "a box without braces": ({"answer": "", "solution": r"It is $\boxed 4$."}, "4"),
    "half a character": ({"answer": f"4{HALF}"}, None),
}


@pytest.mark.parametrize(("given", "right"), GROUND_TRUTHS.values(), ids=GROUND_TRUTHS)
def test_one_rule_for_ground_truths_in_preparing_training_and_evaluation(
    tmp_path: Path, given: Row, right: str | None
) -> None:
    rows = [{"solution": None, **row(1, "1")}, {"solution": None, **row(2, "2")}, {**row(3), "solution": None, **given}]
    source = write(tmp_path / "rows.jsonl", rows)
    prepare(source)
    assert prepared(source).get(question(3)) == right
    assert dropped(source) == ([] if right else ["no final answer"])

    as_verl = write(tmp_path / "verl.jsonl", [message_row(question(3), given["answer"])])
    if right is None:
        with named("rows.jsonl, row 3"):
            asked(source)
        with named("record 1"):
            trained_on(as_verl)
    else:
        assert asked(source)[2].ground_truth == right
        if not given.get("solution"):
            assert len(trained_on(as_verl)) == 1


def test_columns_of_a_parquet_file_that_are_no_answers(tmp_path: Path) -> None:
    floats = write(tmp_path / "floats.parquet", [row(1, 1.0), row(2, 2.5), row(3, float("nan")), row(4, 4.0)])
    prepare(floats)
    assert prepared(floats) == {question(1): "1", question(2): "2.5", question(4): "4"}
    bare = write(tmp_path / "null.parquet", [{**row(1), "answer": "1"}, {**row(2), "answer": None}, row(3, "3")])
    prepare(bare)
    assert (set(prepared(bare)), dropped(bare)) == ({question(1), question(3)}, ["no final answer"])
    binary = write(tmp_path / "binary.parquet", [row(i, b"4") for i in range(3)])
    with named("binary.parquet, record 1", "'answer' is b'4'"):
        prepare(binary)
    problems = write(tmp_path / "problems.parquet", [{"problem": b"a", "answer": "4"}])
    with named("problems.parquet, record 1", "'problem' is not a text"):
        prepare(problems)


# ---- the content of messages ---------------------------------------------------------------------


def message_row(content: Any, answer: Any = "4", **extra: Any) -> Row:
    return {
        "data_source": "math",
        "prompt": [{"role": "user", "content": content}],
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {"index": 0, **extra},
    }


TEXTS: dict[str, tuple[Any, str]] = {
    "a text": ("2+2?", "2+2?"),
    "one part": ([{"type": "text", "text": "2+2?"}], "2+2?"),
    "a part of a parquet file": ([{"type": "text", "text": "2+2?", "image": None}], "2+2?"),
    "two parts": ([{"type": "text", "text": "Find it:"}, {"type": "text", "text": "2+2?"}], "Find it:\n2+2?"),
    "two parts with a space": ([{"type": "text", "text": "What is "}, {"type": "text", "text": "2?"}], "What is 2?"),
    "texts": (["What is", "2?"], "What is\n2?"),
    "a part alone": ({"type": "text", "text": "2+2?"}, "2+2?"),
    "a part of another interface": ([{"type": "input_text", "text": "2+2?"}], "2+2?"),
    "no type": ([{"text": "2+2?"}], "2+2?"),
}
NO_TEXTS: dict[str, tuple[Any, str]] = {
    "null": (None, "no user message"),
    "empty": ("", "no user message"),
    "blank": (" \n", "'prompt' is missing or empty"),
    "no parts": ([], "'prompt' is missing or empty"),
    "empty parts": ([{"type": "text", "text": ""}], "'prompt' is missing or empty"),
    "an image": ([{"type": "image", "image": "x.png"}, {"type": "text", "text": "?"}], "the type 'image'"),
    "an address": ([{"type": "image_url", "image_url": {"url": "x"}}], "the type 'image_url'"),
    "a number": (4, "'prompt' is not a text"),
    "a part without text": ([{"type": "text", "text": None}], "a part without text"),
    "half a character": (f"2{HALF}?", "half a character (U+D83D)"),
    "half a character in a part": ([{"type": "text", "text": HALF}], "half a character (U+D83D)"),
}


@pytest.mark.parametrize(("content", "text"), TEXTS.values(), ids=TEXTS)
def test_the_text_of_a_content_wherever_it_is_read(tmp_path: Path, content: Any, text: str) -> None:
    assert content_text(content) == text
    assert user_message([{"role": "user", "content": content}]) == text
    source = write(tmp_path / "rows.jsonl", [{"question": text, "answer": "4"}, row(1, "1"), row(2, "2")])
    for number, held in enumerate((message_row(content), {"problem": content})):
        held_out = write(tmp_path / f"held{number}.jsonl", [held])
        prepare(source, held_out)
        assert dropped(source) == ["held out, same"]
    assert len(trained_on(write(tmp_path / "train.jsonl", [message_row(content)]))) == 1
    assert asked(tmp_path / "train.jsonl")[0].text == text


@pytest.mark.parametrize(("content", "message"), NO_TEXTS.values(), ids=NO_TEXTS)
def test_a_content_without_a_text_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(RowError):
        content_text(content)
    rows = write(tmp_path / "rows.jsonl", [message_row("fine"), message_row(content)])
    with named("rows.jsonl, row 2", message):
        asked(rows)
    with named("record 2"):
        trained_on(rows)
    source = write(tmp_path / "source.jsonl", [row(i, str(i)) for i in range(3)])
    with named("longshort.held_out", "rows.jsonl, record 2", message):
        prepare(source, rows)
    many = write(tmp_path / "many.jsonl", [message_row("a 1"), message_row("b 2 b"), message_row(content)])
    prepare(many)
    assert (set(prepared(many)), dropped(many)) == ({"a 1", "b 2 b"}, ["no problem"])


def test_messages_as_a_json_text_are_read_wherever_they_are(tmp_path: Path) -> None:
    source = write(tmp_path / "source.jsonl", [row(i, str(i)) for i in range(3)])
    given = message_row([{"type": "text", "text": question(1)}])
    texts = {name: json.dumps(given[name]) for name in ("prompt", "reward_model", "extra_info")}
    held = write(tmp_path / "held.jsonl", [{**given, **texts}])
    prepare(source, held)
    assert dropped(source) == ["held out, same"]
    assert trained_on(held) == [question(1)]
    assert [(each.text, each.ground_truth) for each in asked(held)] == [(question(1), "4")]


@pytest.mark.parametrize("prompt", ["[{", "a text", '{"role": "user"}', "[]"])
def test_a_prompt_that_is_no_chat_is_refused(tmp_path: Path, prompt: str) -> None:
    source = write(tmp_path / "source.jsonl", [row(i, str(i)) for i in range(3)])
    held = write(tmp_path / "held.jsonl", [{"prompt": prompt}])
    with named("longshort.held_out", "held.jsonl, record 1"):
        prepare(source, held)


def test_characters_without_width_do_not_hide_a_problem() -> None:
    assert words("what\u200b is\ufeff 2\u00ad3") == words("what is 23")


# ---- evaluation ----------------------------------------------------------------------------------


def evaluate(data: Path, *more: str) -> Result:
    with serve(in_turn([completion(r"\boxed{4}")])) as endpoint:
        return call(
            "eval",
            "longshort.name=x",
            f"longshort.output_dir={data.parent / data.stem}",
            "longshort.mode=plain",
            f"longshort.data={data}",
            f"longshort.endpoint.base_url.single={endpoint.url}",
            "longshort.models.single=m",
            "longshort.endpoint.attempts=1",
            *more,
        )


def records(folder: Path) -> list[Row]:
    (file,) = folder.glob("*/x.jsonl")
    return sorted(read_record_file(file)[1], key=lambda record: record["problem_index"])


def test_what_else_a_row_has_is_saved_as_text(tmp_path: Path) -> None:
    odd = {"time": datetime.datetime(2020, 1, 2), "code": b"x\xff", "size": Decimal("1.5"), "parts": [{"a": b"y"}]}
    data = write(tmp_path / "rows.parquet", [message_row("2+2?", **odd)])
    result = evaluate(data)
    assert result.exit_code == 0, (result.output, result.exception)
    extra = records(tmp_path)[0]["extra_info"]
    assert (extra["time"], extra["size"], extra["index"]) == ("2020-01-02T00:00:00", "1.5", 0)


@pytest.mark.parametrize(
    ("solution", "right"),
    [(r"is \boxed 4", "4"), (r"\boxed{3} or \boxed{4}", "3, 4"), (r"$\boxed{\dfrac 12}$", r"\dfrac 12")],
)
def test_a_solution_of_math(tmp_path: Path, solution: str, right: str) -> None:
    data = write(tmp_path / "rows.jsonl", [{"problem": "p", "solution": solution}])
    assert asked(data)[0].ground_truth == right


OPTIONS = {
    "twice": ({"Incorrect Answer 1": "a"}, "has the same option twice"),
    "empty": ({"Incorrect Answer 1": ""}, "'Incorrect Answer 1' is missing or empty"),
    "a number": ({"Incorrect Answer 1": 3}, "'Incorrect Answer 1' is not a text"),
}


@pytest.mark.parametrize(("change", "message"), OPTIONS.values(), ids=OPTIONS)
def test_options_that_cannot_be_told_apart_are_named(tmp_path: Path, change: Row, message: str) -> None:
    good = {"Question": "q?", "Correct Answer": "a", **{f"Incorrect Answer {k}": "bcd"[k - 1] for k in (1, 2, 3)}}
    data = write(tmp_path / "rows.jsonl", [good, {**good, **change}])
    with named("rows.jsonl, row 2", message):
        asked(data)


BROKEN_LINES = {
    "blank": b"\n",
    "broken": b'{"id": \n',
    "no bytes": b"\0\0\0\0\n",
    "no bytes before a record": b"\0\0\0",
    "other bytes": b"\xff\xfe\n",
    "no object": b"[1]\n",
    "no id": b"{}\n",
}


@pytest.mark.parametrize("broken", BROKEN_LINES.values(), ids=BROKEN_LINES)
def test_a_broken_line_of_a_record_file_is_named(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "x.jsonl"
    with RecordFile(path, {"name": "x"}) as file:
        file.append({"id": "0"})
        file.append({"id": "1"})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], broken, *lines[2:]]))
    with named(f"{path}, line 3", "remove the line"):
        RecordFile(path, {"name": "x"})
    with named(f"{path}, line 3", "remove the line"):
        read_record_file(path)
    path.write_bytes(broken + b"".join(lines))
    if broken != b"{}\n":  # a header of other settings, which is another error
        with named(f"{path}, line 1", "remove the file"):
            read_record_file(path)


def test_a_broken_line_is_named_when_an_evaluation_is_resumed_and_shown(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", [row(1, "4"), row(2, "4")])
    assert evaluate(data).exit_code == 0
    file = tmp_path / "rows/x.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], b"\0\0\0\n"]))
    for result in (evaluate(data), call("table", file)):
        fails(result, f"{file}, line 3", "remove the line")
    file.write_bytes(b"".join(lines[:2]) + b"\0\0\0")
    assert evaluate(data).exit_code == 0
    assert len(records(tmp_path)) == 2


# ---- files that are not what they seem -----------------------------------------------------------

LINE = '{"id": "é", "problem": "p", "ground_truth": 1, "chain": "a", "answer": "1"}\n'
UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "UTF-16": ("a.jsonl", LINE.encode("utf-16"), "line 1: is UTF-16, not UTF-8"),
    "UTF-16 with its other end first": ("a.jsonl", codecs.BOM_UTF16_BE + LINE.encode("utf-16-be"), "line 1: is UTF-16"),
    "UTF-32": ("a.jsonl", LINE.encode("utf-32"), "line 1: is UTF-32"),
    "UTF-16 without a mark": ("a.jsonl", LINE.encode("utf-16-le"), "line 1: is not UTF-8"),
    "Latin-1": ("a.jsonl", b"\n" + LINE.encode("latin-1"), "line 2: is not UTF-8 (byte 0xe9)"),
    "gzip": ("a.jsonl.gz", gzip.compress(LINE.encode()), "is compressed (gzip)"),
    "gzip by another name": ("a.jsonl", gzip.compress(LINE.encode()), "is compressed (gzip)"),
    "bzip2": ("a.jsonl", bz2.compress(LINE.encode()), "is compressed (bzip2)"),
    "xz": ("a.jsonl", lzma.compress(LINE.encode()), "is compressed (xz)"),
    "zip": ("a.jsonl", b"PK\x03\x04rest", "is compressed (zip)"),
    "a long number": ("a.jsonl", b'{"a": ' + b"1" * 5000 + b"}", "is not JSON"),
    "deep": ("a.jsonl", b"[" * 100_000, "is not JSON"),
    "no bytes": ("a.jsonl", LINE.encode() + b"\0\0\0\n", "line 2"),
}


@pytest.mark.parametrize(("name", "content", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_file_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with named(str(file), message):
        read_stage(file, Chain, key="longshort.input")
    for read in (prepare, asked):
        with named(str(file), message):
            read(file)
    if file.suffix == ".jsonl":
        other = file.rename(file.with_suffix(".json"))
        with named(str(other)):
            asked(other)


def test_a_compressed_file_on_the_command_line_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(LINE.encode()))
    fails(call("chunk", f"longshort.input={file}", f"longshort.output={tmp_path / 'out.jsonl'}"), "compressed (gzip)")
    output = [f"longshort.output_dir={tmp_path / 'out'}", "longshort.held_out=[]"]
    fails(call("prepare", "problems", f"longshort.source={file}", *output), "compressed (gzip)")


def test_other_kinds_of_file_are_named_too(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_bytes("question,answer\n1,2\né,3\n".encode("latin-1"))
    with named(f"{table}, line 3", "is not UTF-8"):
        prepare(table)
    cut = tmp_path / "a.parquet"
    write(cut, [row(1, "1")])
    cut.write_bytes(cut.read_bytes()[:-40])
    with named(str(cut), "is not a parquet file"):
        prepare(cut)
    text = pa.array([b"a", b"\xff"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 2, text.buffers())
    parquet.write_table(pa.table({"question": texts, "answer": ["1", "2"]}), cut)
    with named(f"{cut}, record 2"):
        prepare(cut)


def test_a_file_of_one_object_is_a_record_if_it_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(row(1, "1")) + "\n")
    assert len(asked(file)) == 1
    for content in ({"data": [row(1, "1")]}, [1]):
        file.write_text(json.dumps(content, indent=1))
        with named(str(file), "a JSON list of objects"):
            asked(file)
    rows = write(tmp_path / "rows.jsonl", [message_row("2+2?", **{HALF: 1})])
    with named("rows.jsonl, row 1", "'extra_info' cannot be saved"):
        asked(rows)


def test_a_long_field_and_a_mark_at_the_beginning_are_read(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text(f"question,answer\na 1,1\nb 2 b,2\n{'x' * 200_000},3\n", encoding="utf-8-sig")
    prepare(table)
    assert len(prepared(table)) == 3
    marked = tmp_path / "a.jsonl"
    marked.write_text(LINE, encoding="utf-8-sig")
    assert len(read_stage(marked, Chain, key="k")) == 1


# ---- half characters -----------------------------------------------------------------------------


def test_half_a_character_in_a_problem_or_a_subject_drops_at_most_its_row(tmp_path: Path) -> None:
    rows = [row(1, "1", subject=f"a{HALF}"), row(2, "2"), {**row(3, "3"), "question": f"half {HALF}"}]
    source = write(tmp_path / "rows.jsonl", rows)
    prepare(source)
    assert (set(prepared(source)), dropped(source)) == ({question(1), question(2)}, ["no problem"])
    with named("rows.jsonl, row 3", "half a character"):
        asked(source)


def test_halves_survive_files_and_are_made_whole(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"a": HALF}])
    assert read_records(tmp_path / "a.jsonl", key="k", columns=()) == [{"a": HALF}]
    with RecordFile(tmp_path / "b.jsonl", {"name": HALF}) as file:
        file.append({"id": HALF})
    assert read_record_file(tmp_path / "b.jsonl") == ({"name": HALF}, [{"id": HALF}])
    assert whole_characters(f"a{HALF}b") == "a\ufffdb"
    assert whole_characters("\ud83d\ude00") == "\U0001f600"
    assert (half_character("a\U0001f600"), half_character(f"a{HALF}")) == (None, "U+D83D")


# ---- chains of a file ----------------------------------------------------------------------------

THOUGHT = r"<think>So 7.</think>The answer is \boxed{7}."
CHAINS: dict[str, tuple[Row, str | None]] = {
    "an answer with a box": ({"response": THOUGHT}, None),
    "an answer that is cut": ({"response": "<think>So 7.</think>The answer is"}, "the answer is cut"),
    "a box that is cut": ({"response": r"<think>So 7.</think>The answer is \boxed{7"}, "the answer is cut"),
    "no answer": ({"response": "<think>So 7.</think>"}, "the answer is cut"),
    "no answer beside the reasoning": ({"reasoning_content": "So 7.", "content": None}, "the answer is cut"),
    "a box in the thinking": ({"response": r"<think>So \boxed{7}.</think>The"}, None),
    "a chain without an answer": ({"chain": "So it is 7."}, None),
    "a model that is called so": ({"conversations": [{"from": "model", "value": THOUGHT}]}, None),
    "in capitals": ({"messages": [{"role": "Assistant", "content": THOUGHT}]}, None),
    "parts": ({"messages": [{"role": "assistant", "content": [{"type": "text", "text": THOUGHT}]}]}, None),
    "parts of thinking": (
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "So 7."},
                        {"type": "text", "text": r"It is \boxed{7}."},
                    ],
                }
            ]
        },
        None,
    ),
    "an image": ({"messages": [{"role": "assistant", "content": [{"type": "image"}]}]}, "no chain for this problem"),
    "no content": ({"messages": [{"role": "assistant", "content": None}]}, "the thinking does not end"),
    "half a character": ({"response": rf"<think>So {HALF} 7.</think>\boxed{{7}}"}, "half a character in the chain"),
    "nothing": ({"generations": [None, THOUGHT]}, None),
}


@pytest.mark.parametrize(("given", "reason"), CHAINS.values(), ids=CHAINS)
def test_a_chain_is_read_or_left_out_with_its_reason(tmp_path: Path, given: Row, reason: str | None) -> None:
    good = {"problem": question(8), "response": r"<think>So \boxed{8}.</think>\boxed{8}"}
    file = write(tmp_path / "r1.jsonl", [good, {"problem": question(7), **given}])
    writer = FileWriter.load(str(file), 5.0)
    problem = Problem(source="a", index=0, text=question(7), ground_truth="7")
    if reason is None:
        assert asyncio.run(writer(problem))["chain"].startswith("So")
    else:
        with pytest.raises(RejectedError) as caught:
            asyncio.run(writer(problem))
        assert caught.value.reason == reason


@pytest.mark.parametrize("messages", ["[]", ["{}"], {"role": "assistant"}], ids=ascii)
def test_messages_that_are_no_list_are_named(tmp_path: Path, messages: Any) -> None:
    rows = [{"problem": question(8), "response": THOUGHT}, {"problem": question(7), "messages": messages}]
    with named("r1.jsonl, record 2", "list of messages"):
        FileWriter.load(str(write(tmp_path / "r1.jsonl", rows)), 5.0)


def test_rows_that_cannot_be_used_are_rejected(tmp_path: Path) -> None:
    good = {"problem": question(7), "response": THOUGHT}
    rows = [
        good,
        {**good, "problem": None},
        {**good, "problem": ""},
        {"problem": question(8), "response": f"{HALF}</think>"},
    ]
    source = write(tmp_path / "problems.jsonl", [{"problem": question(i), "answer": str(i)} for i in (7, 8)])
    chains = write(tmp_path / "r1.jsonl", rows)
    given = [
        f"longshort.source={source}",
        f"longshort.chains={chains}",
        f"longshort.output={tmp_path / 'chains.jsonl'}",
    ]
    more = ["longshort.held_out=[]", "longshort.kinds=[]", "longshort.problems=2"]
    result = call("prepare", "chains", *given, *more)
    assert result.exit_code == 0, (result.output, result.exception)
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "chains.rejects.jsonl").read_text().splitlines()]
    assert reasons == ["no problem", "no problem", "half a character in the chain"]
    write(chains, [{**good, "problem": ""}])
    fails(call("prepare", "chains", *given, *more), "r1.jsonl, record 1", "'problem' is missing")
