"""Metrics of a run: a file per start, and a user's own file gets them all."""

import os
import time

from verl_longshort.base.metrics_files import VARIABLE, metrics_file, metrics_files


def start(folder, *lines):
    """What verl's file logger does: it truncates the file that the variable names."""
    with metrics_file(folder), open(os.environ[VARIABLE], "wb", buffering=0) as file:
        for line in lines:
            file.write(f"{line}\n".encode())


def test_a_file_per_start(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    start(tmp_path / "run", "1", "2")
    start(tmp_path / "run", "3")
    assert [file.read_text() for file in metrics_files(tmp_path / "run")] == ["1\n2\n", "3\n"]
    assert VARIABLE not in os.environ


def test_a_users_own_file_is_appended_to(tmp_path, monkeypatch):
    given = tmp_path / "mine" / "m.jsonl"
    monkeypatch.setenv(VARIABLE, str(given))
    start(tmp_path / "run", "1", "2")
    with metrics_file(tmp_path / "run") as own:
        own.write_text("3\n4")
        ends = time.monotonic() + 10
        while not given.read_text().endswith("3\n") and time.monotonic() < ends:
            time.sleep(0.05)
        # while the run is going on, and only whole lines
        assert given.read_text() == "1\n2\n3\n"
        with own.open("a") as file:
            file.write("\n")
    assert given.read_text() == "1\n2\n3\n4\n"
    assert os.environ[VARIABLE] == str(given)
    assert len(metrics_files(tmp_path / "run")) == 2
