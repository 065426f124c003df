"""What reaches the console of a stage with a log, and what only the log."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from longshort_reward.errors import UserError

from verl_longshort.base.checkpoint import Validation
from verl_longshort.base.console import PACKAGE, VARIABLE, Once, SaidLines, captured, next_log, say
from verl_longshort.base.progress import shown
from verl_longshort.core.schedule import Schedule
from verl_longshort.verl_plugin.run.console import PAIR, say_validation, step_line

PROGRAM = """
import logging, os, subprocess, sys
from pathlib import Path
from verl_longshort.base.console import captured, say
from verl_longshort.base.progress import report, shown

with captured(Path(sys.argv[1])) as apart, shown("train", apart.console, said=apart.said):
    print("printed")
    print("to stderr", file=sys.stderr)
    os.write(1, b"by a C library\\n")
    subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
    child = "from verl_longshort.base.console import say; say('said by a child')"
    subprocess.run([sys.executable, "-c", child], check=True)
    for _ in range(3):
        logging.getLogger("verl_longshort.anywhere").warning("mind this")
    logging.getLogger("verl.anywhere").warning("verl's own")
    report(1, 2, "half")
    say("step 1/2")
    if len(sys.argv) > 2:
        raise RuntimeError("it went wrong")
print("after")
"""
PRINTED = ("printed", "to stderr", "by a C library", "by a child", "verl's own")


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = list(logging.getLogger(PACKAGE).handlers)
    yield
    logging.getLogger(PACKAGE).handlers[:] = before


def run(log: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", PROGRAM, str(log), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_only_what_was_said_is_on_the_console(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "train.0.log"
    done = run(log)
    assert done.stdout.splitlines() == [
        f"Log: {log}",
        "said by a child",
        "warning: mind this",
        "step 1/2",
        "after",
    ]
    assert not done.stderr
    assert all(line in log.read_text().splitlines() for line in PRINTED)
    assert log.with_suffix(".txt").read_text().splitlines()[-1] == "step 1/2"


def test_an_error_is_on_the_console_and_its_traceback_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "train.0.log"
    done = run(log, "fail")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == f"All that was printed: {log}"
    assert done.stderr.endswith("RunDiedError: RuntimeError: it went wrong\n")
    assert "RuntimeError: it went wrong" in log.read_text()


def test_an_error_for_people_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.key = 1: set 2"), captured(tmp_path / "log"):
        raise UserError("a.key", 1, "set 2")


def test_what_is_said_is_shown_where_a_launcher_shows_the_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LONGSHORT_PROGRESS", str(tmp_path / "progress.json"))
    done = run(tmp_path / "train.0.log")
    assert "step 1/2" in done.stdout.splitlines()
    assert '"half"' in (tmp_path / "progress.json").read_text()


def test_said_lines_are_shown_above_a_bar(tmp_path: Path) -> None:
    import io

    from rich.console import Console

    screen = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    said = tmp_path / "said.txt"
    said.touch()
    with shown("train", screen, said=said):
        said.write_text("step 1/2\nstep 2/2\nhalf a li")
        print("for the log")
    assert "for the log" not in screen.file.getvalue()
    assert isinstance(screen.file, io.StringIO)
    assert "step 1/2" in screen.file.getvalue()
    assert "half a li" not in screen.file.getvalue()


def test_lines_are_read_once_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "said.txt"
    file.write_text("one\n\ntw")
    lines = SaidLines(file)
    assert lines.new() == ["one", ""]
    assert lines.new() == []
    with file.open("a") as more:
        more.write("o\nthree\n")
    assert lines.new() == ["two", "three"]


def test_without_a_console_of_its_own_a_line_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    say("step 1/2")
    assert capsys.readouterr().out == "step 1/2\n"


def test_every_start_has_a_log_of_its_own(tmp_path: Path) -> None:
    first = next_log(tmp_path, "train")
    first.touch()
    (tmp_path / "train-single.0.log").touch()
    assert (first.name, next_log(tmp_path, "train").name) == ("train.0.log", "train.1.log")


def test_streams_and_environment_are_as_before(tmp_path: Path) -> None:
    with captured(tmp_path / "log"):
        assert VARIABLE in os.environ
    assert VARIABLE not in os.environ
    os.fstat(1)


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"log = .*train\.0\.log: cannot be written"),
        captured(tmp_path / "file" / "train.0.log"),
    ):
        pass


def test_a_repeated_message_passes_once() -> None:
    once = Once()
    record = logging.makeLogRecord({"msg": "target_num_threads %d", "args": (8,)})
    assert [once.filter(record) for _ in range(3)] == [True, False, False]


def test_a_line_for_a_step() -> None:
    metrics = {
        "pair/accuracy": 0.6132,
        "pair/tokens": 83.04,
        "long/reward/total": 0.62,
        "short/reward/total": 0.6,
        "pair/rethink_rate": 0.125,
        "timing_s/step": 14.23,
        "long/actor/lr": 1e-6,
    }
    said = "step  12/120  L1     accuracy  61.3%  tokens   83.0  reward 0.620 / 0.600  rethink  12.5%  14.2 s"
    assert step_line(12, 120, metrics, PAIR, "L1", 1540.0) == f"{said}  25:40 left"
    assert step_line(12, 120, metrics, PAIR, "L1", None) == said
    assert step_line(2, 2, {}, PAIR, "", 0.0) == "step 2/2"


def test_a_line_for_a_validation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    now, other = (Validation(step=step, accuracy=0.75, tokens=80.0) for step in (4, 2))
    for best in (now, other, None):
        say_validation(now, best)
    ends = [line.partition("80.0 tokens")[2] for line in capsys.readouterr().out.splitlines()]
    assert ends == ["; the best so far", "; best: step 2", ""]


def test_rounds_have_names() -> None:
    schedule = Schedule.parse(["long", "short", "both", "long"], 2)
    assert [schedule.round_name(step) for step in (1, 2, 3, 5, 8)] == ["L1", "L1", "S1", "L2+S2", "L3"]
