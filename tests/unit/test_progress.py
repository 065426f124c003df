"""What a stage that is run by hand shows of its progress: on a terminal, and where there is none."""

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from verl_longshort.base import progress
from verl_longshort.base.progress import VARIABLE, Progress, report, shown


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(progress, "POLL_S", 0.01)
    monkeypatch.setattr(progress, "LINE_S", 0.0)


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)


def text(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


def wait_for(there: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not there():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_lines_where_there_is_no_terminal() -> None:
    plain = console(terminal=False)
    with shown("weigh", plain):
        report(1, 4, "1/4 records")
        wait_for(lambda: "1/4 records" in text(plain))
        report(2, 4, "2/4 records")
        wait_for(lambda: "2/4 records" in text(plain))
    first, second = text(plain).splitlines()
    assert first == "weigh 25% 1/4 records; 00:00 so far"
    assert second == "weigh 50% 2/4 records; 00:00 so far, about 00:00 left"


def test_a_line_is_not_said_again_nor_too_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = console(terminal=False)
    monkeypatch.setattr(progress, "LINE_S", 0.2)
    with shown("weigh", plain):
        for done in range(20):
            report(done, 20, f"{done}/20")
            time.sleep(0.02)
        time.sleep(0.3)
    assert 1 <= len(text(plain).splitlines()) <= 3


def test_a_bar_on_a_terminal() -> None:
    screen = console(terminal=True)
    with shown("weigh", screen):
        report(1, 4, "1/4 records")
        wait_for(lambda: "1/4 records" in text(screen))
        report(3, 4, "3/4 records")
        wait_for(lambda: "75%" in text(screen) and "left" in text(screen))
    assert "weigh" in text(screen)


def test_a_total_that_nobody_knows() -> None:
    for kind in (console(terminal=False), console(terminal=True)):
        with shown("world", kind):
            report(7, 0, "7 problems")
            wait_for(lambda kind=kind: "7 problems" in text(kind))  # type: ignore[misc]
        assert "left" not in text(kind)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_variable_is_there_for_processes_of_the_stage_alone(terminal: bool) -> None:
    folders = []

    def fail() -> None:
        with shown("weigh", console(terminal=terminal)):
            folders.append(Path(os.environ[VARIABLE]).parent)
            assert folders[0].is_dir()
            raise RuntimeError("the stage fails")

    with pytest.raises(RuntimeError, match="the stage fails"):
        fail()
    assert VARIABLE not in os.environ
    assert not folders[0].exists()


def test_somebody_else_shows_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "progress.json"))
    plain = console(terminal=False)
    with shown("weigh", plain):
        report(1, 4, "1/4 records")
    assert os.environ[VARIABLE] == str(tmp_path / "progress.json")
    assert progress.read(tmp_path / "progress.json") == Progress(done=1, total=4, message="1/4 records")
    assert not text(plain)


def test_a_process_elsewhere_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "of another machine" / "progress.json"))
    report(1, 4)
