"""Trajectories of training in the report: which are shown, under which steps, with what."""

from pathlib import Path

from helpers.run import make_run, write_sampled, write_training

from verl_longshort.report.report import report_page
from verl_longshort.report.run_dir import read_runs
from verl_longshort.report.sampled import sample_steps, sampled_section


def test_every_step_is_there_with_the_round(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    write_sampled(root / "pair")
    runs = read_runs([root], None)
    sample = sample_steps(runs, limit=100, seed=0)
    assert sample.data["evaluations"] == ["step 1 · L1", "step 2 · S1", "step 3 · S1"]
    assert (sample.shown, sample.total) == (12, 12)
    assert [row["e"] for row in sample.data["rows"]] == [0] * 4 + [1] * 4 + [2] * 4
    first = sample.data["rows"][0]
    assert first["terms"] == {
        "EM": 1.0,
        "FM long": 1.0,
        "FM short": 1.0,
        "LM": 0.25,
        "reward long": 1.1,
        "advantage long": 0.7,
        "reward short": 1.1,
    }
    assert "advantage long" not in sample.data["rows"][-1]["terms"]
    page = report_page(runs, trajectories=100, seed=0)
    assert "All 12 logged trajectories of training." in page
    assert '<option value="0">step 1 · L1</option>' in page


def test_a_control_has_steps_of_its_own(tmp_path: Path) -> None:
    write_training(tmp_path / "pair")
    write_sampled(tmp_path / "pair", steps=1)
    write_sampled(tmp_path / "controls" / "single", steps=1, single=True)
    sample = sample_steps(read_runs([tmp_path], None), limit=100, seed=0)
    assert sample.data["evaluations"] == ["step 1 · L1", "single · step 1"]
    assert sample.data["rows"][-1]["terms"] == {"EM": 0.0, "FM": 1.0, "LM": 0.25, "reward": 0.1, "advantage": 0.7}


def test_a_page_holds_whole_problems_those_of_most_steps_first(tmp_path: Path) -> None:
    write_training(tmp_path / "pair")
    write_sampled(tmp_path / "pair", steps=3, problems=30)
    # the last problem is met in no other step
    extra = tmp_path / "pair" / "trajectories" / "step_4.jsonl"
    extra.write_text(
        (extra.parent / "step_1.jsonl").read_text().replace('"p0"', '"p99"').replace('"step": 1', '"step": 4')
    )
    runs = read_runs([tmp_path], None)
    sample = sample_steps(runs, limit=21, seed=0)
    assert sample.total == 240
    # 29 problems were met in four steps, with two trajectories in each
    assert sample.shown == 16
    assert len(sample.data["problems"]) == 2
    assert [title.split(" · ")[0] for title in sample.data["evaluations"]] == ["step 1", "step 2", "step 3", "step 4"]
    assert sample_steps(runs, limit=21, seed=0).data == sample.data
    section = sampled_section(runs, limit=21, seed=0)
    assert section is not None
    assert "16 of 240 logged trajectories of training: all that was logged of some problems" in section.body


def test_a_run_that_logged_none_has_no_such_section(tmp_path: Path) -> None:
    assert sampled_section(read_runs([make_run(tmp_path)], None), limit=10, seed=0) is None


def test_what_is_no_number_breaks_no_page(tmp_path: Path) -> None:
    write_training(tmp_path / "pair")
    write_sampled(tmp_path / "pair", steps=1)
    file = tmp_path / "pair" / "trajectories" / "step_1.jsonl"
    file.write_text(file.read_text().replace('"advantage": 0.7', '"advantage": NaN'))
    section = sampled_section(read_runs([tmp_path], None), limit=10, seed=0)
    assert section is not None
    assert ": NaN" not in section.body
    assert '"nan"' in section.body
