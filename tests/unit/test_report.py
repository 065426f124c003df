"""The report of a run: whole, self-contained, and honest about what is not there."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.run import EVIL, PROBLEMS, make_run, metrics, write_evaluation, write_training
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.errors import UserError

from verl_longshort.base.progress import VARIABLE
from verl_longshort.cli import main
from verl_longshort.report.comparison import comparison_rows
from verl_longshort.report.curves import curves_section
from verl_longshort.report.facts import facts_section
from verl_longshort.report.report import report, report_page
from verl_longshort.report.results import headline, tables
from verl_longshort.report.run_dir import Run, read_runs
from verl_longshort.report.scatter import spread_apart
from verl_longshort.report.training_log import read_training_log
from verl_longshort.report.trajectories import sample_trajectories


def page_of(*runs: Run, trajectories: int = 3000, seed: int = 0) -> str:
    return report_page(runs, trajectories=trajectories, seed=seed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_runs([make_run(tmp_path_factory.mktemp("runs") / "whole")], None)[0]


@pytest.fixture(scope="module")
def page(whole: Run) -> str:
    return page_of(whole)


def text_of(page: str) -> str:
    """The page's visible text, roughly."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<(style|script).*?</\1>", "", page)))


def test_a_whole_run(page: str) -> None:
    text = text_of(page)
    titles = re.findall(r"<h2 [^>]*>(.*?)</h2>", page)
    parts = ["Beside the paper", "Accuracy against tokens", "Long round × short round", "Training"]
    assert titles == ["Results", *parts, "Trajectories", "The run"]
    assert "seed 0" in text
    assert "Validation chose L1S0" in text
    assert "1 min 15 s" in text
    assert "6 problems, one answer each, greedy answers, 2026-01-02" in text
    assert "not finished" not in text


def test_nothing_is_fetched(page: str) -> None:
    assert not re.findall(r"""\b(?:src|href|action|poster|data)\s*=\s*["']?(?!#|data:)[^"'\s>]+""", page)
    assert not re.findall(r"url\((?!#)", page)
    assert "@import" not in page
    assert "http://" not in page
    assert "https://" not in page


def test_names_in_the_page_are_unique(page: str) -> None:
    names = re.findall(r'\sid="([^"]+)"', page)
    assert len(names) == len(set(names))


def test_measured_and_published_stand_apart(page: str, whole: Run) -> None:
    rows = {row.name: row for row in comparison_rows([whole])}
    assert list(rows) == ["L0S0", "L1S0", "L1S1", "L2S0", "L2S1", "L3S1", "L3S2", "L4S2"]
    assert rows["L1S1"].published == [None, None]
    assert rows["L4S2"].measured is None
    table = page[page.index('<table class="compare">') :]
    table = table[: table.index("</table>")]
    for cell in re.findall(r'<td[^>]*class="([^"]*)"', table):
        assert ("measured" in cell.split()) != ("published" in cell.split())
    assert "not measured" in table
    assert "not published" in table


def test_the_grid_says_what_is_not_measured(page: str) -> None:
    grid = page[page.index('<table class="grid">') :]
    grid = grid[: grid.index("</table>")]
    assert grid.count('class="cell"') == 3
    assert grid.count("not measured") == 1


def test_the_chosen_pair_comes_first(whole: Run) -> None:
    group = headline([whole])
    assert group is not None
    assert (group.name, group.is_chosen) == ("L1S0", True)


def test_the_base_can_be_chosen(whole: Run) -> None:
    (run,) = read_runs([whole.root], "L0S0")
    assert run.bases["test"].name == "L0S0"
    assert whole.bases["test"].name == "long-CoT"
    with pytest.raises(UserError, match=r"is none of the evaluations .* long-CoT, direct, L0S0"):
        read_runs([whole.root], "L9S9")


def test_a_reasoning_models_own_chain_is_the_base(tmp_path: Path) -> None:
    for name, mode in (("base", "direct"), ("long-CoT", "direct"), ("L0S0", "pair")):
        write_evaluation(tmp_path, name, mode=mode)
    (run,) = read_runs([tmp_path], None)
    assert run.bases["test"].name == "long-CoT"


def test_without_a_correct_answer_the_page_says_why_there_is_no_score(tmp_path: Path) -> None:
    for name, right in (("long-CoT", 0), ("L0S0", 0), ("L1S0", 2)):
        write_evaluation(tmp_path, name, mode="pair" if name != "long-CoT" else "long_cot", right=right)
    report([tmp_path], out=tmp_path / "out.html", base=None, trajectories=10, seed=0)
    page = " ".join((tmp_path / "out.html").read_text().split())
    assert page.count("no AES: long-CoT, its base, has no correct answer (another: --base)") == 2
    assert "long-CoT has no correct answer" in page
    assert "the higher" not in page


def test_what_a_model_wrote_is_only_text(tmp_path: Path) -> None:
    write_evaluation(tmp_path, "L0S0", text=EVIL)
    write_evaluation(tmp_path, EVIL.replace("/", ""), text=EVIL)
    (run,) = read_runs([tmp_path], None)
    page = page_of(run)
    assert "<img" not in page
    assert page.count("<script") == page.count("</script>") == 2
    data = json.loads(re.search(r'id="trajectory-data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert any(EVIL in turn[1] for row in data["rows"] for turn in row["turns"])


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("pair", "no training metrics"),
        ("results", "no evaluation"),
        ("stages", "stages not begun: world, train"),
        ("run.json", "not recorded"),
    ],
)
def test_what_is_missing_is_said(whole: Run, tmp_path: Path, gone: str, said: str) -> None:
    root = tmp_path / "run"
    shutil.copytree(whole.root, root)
    shutil.rmtree(root / gone, ignore_errors=True)
    (root / gone).unlink(missing_ok=True)
    assert said in text_of(page_of(*read_runs([root], None)))


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    write_evaluation(tmp_path, "L0S0", finished=False)
    write_training(tmp_path / "pair", steps=3)
    (tmp_path / "stages").mkdir()
    marker = {"fingerprint": "f", "status": "running", "mark": "m", "seconds": 0.0}
    (tmp_path / "stages" / "train.json").write_text(json.dumps(marker))
    (run,) = read_runs([tmp_path], None)
    text = text_of(page_of(run))
    assert "3 of 4 steps" in text
    assert f"L0S0: 3 of {PROBLEMS} answers" in text
    assert "stage train is not done" in text


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair" / "metrics.0.jsonl").write_text(json.dumps({"step": 0, "data": metrics(0)}) + "\n")
    text = text_of(page_of(*read_runs([tmp_path], None)))
    assert "Nothing measured yet" in text


def test_the_stage_that_makes_the_report_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path)
    marker = {"fingerprint": "f", "status": "running", "mark": "m", "seconds": 0.0}
    (tmp_path / "stages" / "report.json").write_text(json.dumps(marker))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "progress" / "report.json"))
    assert read_runs([tmp_path], None)[0].missing == []


def test_the_limits_shown_are_the_pairs(tmp_path: Path) -> None:
    (run,) = read_runs([make_run(tmp_path)], None)
    assert run.evaluations[0].is_alone
    body = str(facts_section([run]).body)
    assert "<dt>token budget</dt><dd>320</dd>" in body
    assert "512" not in body


def test_stages_that_have_not_begun_are_named(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "stages" / "train.json").unlink()
    (run,) = read_runs([tmp_path], None)
    assert run.missing == ["stages not begun: train"]
    assert "not begun" in facts_section([run]).body


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "folder"
    if made:
        folder.mkdir()
    with pytest.raises(UserError, match="RUN_DIR"):
        report([folder], out=tmp_path / "out.html", base=None, trajectories=10, seed=0)
    assert not (tmp_path / "out.html").exists()


def test_several_runs(tmp_path: Path) -> None:
    runs = read_runs([make_run(tmp_path / name, seed=seed) for seed, name in enumerate("abc")], None)
    assert [run.label for run in runs] == ["seed 0", "seed 1", "seed 2"]
    (table,) = tables(runs)
    assert all(len(group.lines) == 3 for group in table.groups)
    text = text_of(page_of(*runs))
    assert "Measured in 3 runs (seed 0, seed 1, seed 2)" in text
    assert "mean of 3" in text


def test_runs_without_seeds_go_by_their_folders(tmp_path: Path) -> None:
    for name in ("a/x", "b/x"):
        write_evaluation(tmp_path / name, "L0S0")
    labels = [run.label for run in read_runs([tmp_path / "a/x", tmp_path / "b/x"], None)]
    assert labels == [str(tmp_path / "a/x"), str(tmp_path / "b/x")]


def test_several_data_sets_have_their_own_tables(tmp_path: Path) -> None:
    write_evaluation(tmp_path, "L0S0")
    write_evaluation(tmp_path, "L1S0")
    write_evaluation(tmp_path / "other", "L0S0", benchmark="hard")
    runs = read_runs([tmp_path], None)
    assert [(table.data, table.base) for table in tables(runs)] == [("test", "L0S0"), ("hard", "L0S0")]
    assert all(score is not None for score in runs[0].scores.values())
    titles = sample_trajectories(runs, limit=100, seed=0).data["evaluations"]
    assert sorted(titles) == ["hard · L0S0", "test · L0S0", "test · L1S0"]


def test_the_sample_is_of_problems_and_keeps_to_its_limit(whole: Run) -> None:
    sample = sample_trajectories([whole], limit=12, seed=1)
    assert (sample.shown, sample.total) == (10, 5 * PROBLEMS)
    shown = {(row["e"], row["p"]) for row in sample.data["rows"]}
    assert shown == {(e, p) for e in range(5) for p in range(2)}
    again = sample_trajectories([whole], limit=12, seed=1)
    assert again == sample
    assert sample_trajectories([whole], limit=12, seed=3).data["problems"] != sample.data["problems"]
    assert sample_trajectories([whole], limit=0, seed=0).shown == 5


def test_terms_of_the_reward(tmp_path: Path) -> None:
    write_evaluation(tmp_path, "L0S0", right=PROBLEMS - 1)
    write_evaluation(tmp_path, "L1S0", right=PROBLEMS - 1, samples=2)
    rows = sample_trajectories(read_runs([tmp_path], None), limit=100, seed=0).data["rows"]
    single = [row["terms"] for row in rows if row["e"] == 0]
    assert single[0] == {"EM": 1, "FM long": 1, "FM short": 1}
    assert single[-1] == {"EM": 0, "FM long": 1, "FM short": 0}
    assert {"LM", "rethink"} < next(row["terms"] for row in rows if row["e"] == 1).keys()


def test_a_resumed_run_counts_the_last_start(tmp_path: Path) -> None:
    write_training(tmp_path, steps=4)
    second = [{"step": 4, "data": {"pair/accuracy": 0.25}}, {"step": 5, "data": {"pair/accuracy": 0.5}}]
    lines = "".join(json.dumps(line) + "\n" for line in second) + '{"step": 6, "da'
    (tmp_path / "metrics.1.jsonl").write_text(lines)
    log = read_training_log(tmp_path)
    assert log is not None
    steps, values = log.series("pair/accuracy")
    assert steps == [1, 2, 3, 4, 5]
    assert values[-2:] == [0.25, 0.5]
    assert [(span.label, span.first, span.last) for span in log.rounds()] == [("L1", 1, 2), ("S1", 3, 4)]


def test_controls_are_drawn_beside_the_pair(tmp_path: Path) -> None:
    write_training(tmp_path / "pair")
    for name in ("single", "single-length"):
        folder = tmp_path / "controls" / name
        folder.mkdir(parents=True)
        logged = {"single/accuracy": 0.5, "single/tokens": 90.0}
        (folder / "metrics.0.jsonl").write_text(json.dumps({"step": 1, "data": logged}) + "\n")
    (run,) = read_runs([tmp_path], None)
    assert list(run.controls) == ["single", "single-length"]
    section = curves_section([run]).body
    assert "Controls: one model alone" in section
    assert section.count(">single-length</text>") == 2


def test_the_command(whole: Run, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.html"
    done = CliRunner().invoke(main, ["report", str(whole.root), "--out", str(out), "--trajectories", "5"])
    assert done.exit_code == 0, done.output
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    refused = CliRunner().invoke(main, ["report", str(whole.root), "--out", str(out), "--trajectories", "-1"])
    assert refused.exit_code == 2
    assert "--trajectories = -1: must be 0 or more" in refused.output


@given(st.lists(st.floats(-100, 100), max_size=12), st.floats(0.1, 20))
def test_names_are_spread_apart_in_their_order(values: list[float], gap: float) -> None:
    placed = spread_apart(values, gap)
    order = sorted(range(len(values)), key=lambda i: (values[i], -i))
    steps = [placed[b] - placed[a] for a, b in pairwise(order)]
    assert all(step >= gap - 1e-6 for step in steps)
    if all(values[b] - values[a] >= gap for a, b in pairwise(order)):
        assert placed == pytest.approx(values)


def test_rollout_correction_of_each_role_is_drawn(tmp_path: Path) -> None:
    write_training(tmp_path / "pair")
    file = tmp_path / "pair" / "metrics.1.jsonl"
    named = {f"{role}/rollout_corr/{key}": 0.9 for role in ("long", "short") for key in ("rollout_is_mean", "k3_kl")}
    file.write_text("".join(json.dumps({"step": step, "data": named}) + "\n" for step in (1, 2)))
    section = curves_section(read_runs([tmp_path], None)).body
    assert "Importance weights over the steps" in section
    assert "KL of engine and actor over the steps" in section


def test_other_methods_are_marked_as_published(page: str) -> None:
    others = page[page.index("Other methods for shorter reasoning") :]
    others = others[: others.index("</details>")]
    assert "None of it was measured here" in others
    assert others.count("<table>") == 4
    assert "arXiv 2510.15110" in others
    assert ">DLER</th>" in others
