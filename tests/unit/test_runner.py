"""Evaluation of tiny models: records, resuming, summary and table."""

import asyncio
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers.word_models import FOLLOWING, save_model
from longshort_reward.errors import UserError
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from verl_longshort.base.concurrency import run_bounded
from verl_longshort.base.journal import RecordFile, read_record_file
from verl_longshort.base.stage import execute
from verl_longshort.cli import main
from verl_longshort.core.environment import StopReason
from verl_longshort.core.trajectory import Generation
from verl_longshort.evaluation import runner
from verl_longshort.evaluation.settings import EvaluationSettings, Mode
from verl_longshort.evaluation.solvers import SingleSolver
from verl_longshort.evaluation.summary import Summary, summarise
from verl_longshort.evaluation.table import as_markdown, load_rows, overview, show_table
from verl_longshort.problems.reader import Problem
from verl_longshort.stages.eval import EvalStage
from verl_longshort.world.tiny_tokenizer import build_tokenizer

PROBLEMS = [(f"start {digit} ; a {digit} ?", str(2 * digit % 10)) for digit in range(6)]


def evaluate(overrides):
    return execute(EvalStage(), overrides=overrides)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: save_model(folder / name, following) for name, following in FOLLOWING.items()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {
            "data_source": "test",
            "prompt": [{"role": "user", "content": text}],
            "reward_model": {"style": "rule", "ground_truth": truth},
            "extra_info": {"index": index},
        }
        for index, (text, truth) in enumerate(PROBLEMS)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "data.parquet")
    return tmp_path / "data.parquet"


def overrides(name: str, data: Path, *more: str, **models: Path) -> list[str]:
    values = [f"longshort.name={name}", f"longshort.data={data}", f"longshort.output_dir={data.parent}"]
    values += ["longshort.environment.prompts={long:'',short:''}", "longshort.environment.token_budget=60"]
    return [*values, *(f"longshort.models.{role}={path}" for role, path in models.items()), *more]


def pair(name: str, data: Path, models: dict[str, Path], *more: str, short: str = "short") -> list[str]:
    return overrides(name, data, *more, long=models["long"], short=models[short])


def test_a_pair_is_evaluated(data: Path, models: dict[str, Path]) -> None:
    summary = evaluate(pair("L0S0", data, models))
    assert (summary.problems, summary.samples, summary.accuracy.value) == (6, 1, 1 / 6)
    assert summary.tokens_by_role == {"long": 3.0, "short": 5.0}
    assert (summary.tokens.value, summary.turns, summary.rethink_rate) == (8.0, 2.0, 0.0)
    assert summary.stop_reasons == {"answered": 6}
    _, records = read_record_file(data.parent / "L0S0.jsonl")
    record = next(record for record in records if record["id"] == "data/2/0")
    assert record["problem"] == "start 2 ; a 2 ?"
    assert [turn["text"] for turn in record["turns"]] == [
        "<think> so </think>",
        "<answer> \\boxed{ 4 } </answer>",
    ]
    assert (record["correct"], record["ground_truth"], record["extra_info"]) == (True, "4", {"index": 2})
    assert json.loads((data.parent / "L0S0.json").read_text())["accuracy"]["value"] == pytest.approx(1 / 6)


def test_a_model_that_plays_both_roles_is_loaded_once(
    data: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, int]] = []
    open_engine = runner.open_engine

    def opening(path: str, *arguments: Any, engines_of_command: int, **options: Any) -> Any:
        opened.append((path, engines_of_command))
        return open_engine(path, *arguments, engines_of_command=engines_of_command, **options)

    monkeypatch.setattr(runner, "open_engine", opening)
    summary = evaluate(overrides("tied", data, long=models["single"], short=models["single"]))
    assert opened == [(str(models["single"]), 1)]
    assert summary.stop_reasons == {"answered": 6}
    assert summary.tokens_by_role == {"long": 3.0, "short": 5.0}
    evaluate(pair("two", data, models))
    assert opened[1:] == [(str(models[role]), 2) for role in ("long", "short")]


def test_rethinks_and_stop_reasons_are_counted(data: Path, models: dict[str, Path]) -> None:
    more = ["longshort.environment.max_turns=4", "longshort.limit=2"]
    summary = evaluate(pair("asking", data, models, *more, short="asking"))
    # An empty turn breaks the protocol, so the first one ends the trajectory.
    assert summary.stop_reasons == {"empty_turn": 2}
    assert summary.accuracy.value == 0


MODES = {
    "joint": ("<think> so </think> <answer> \\boxed{ 4 } </answer>", 8),
    "long_cot": ("<think> so </think> <answer> \\boxed{ 4 } </answer>", 8),
    "direct": ("<answer> \\boxed{ 4 } </answer>", 5),
    "plain": ("<think> so </think> <answer> \\boxed{ 4 } </answer>", 8),
}


@pytest.mark.parametrize(("mode", "text", "tokens"), [(mode, *rest) for mode, rest in MODES.items()])
def test_a_single_model_is_evaluated(data: Path, models: dict[str, Path], mode: str, text: str, tokens: int) -> None:
    summary = evaluate(overrides(mode, data, f"longshort.mode={mode}", single=models["single"]))
    assert summary.accuracy.value == pytest.approx(1 / 6)
    assert summary.tokens_by_role == {"single": tokens}
    _, records = read_record_file(data.parent / f"{mode}.jsonl")
    assert {record["text"] for record in records} == {text}


def test_a_tag_that_the_chat_template_writes_is_not_written_again() -> None:
    tokenizer: PreTrainedTokenizerFast = build_tokenizer()
    tokenizer.chat_template += "{% if add_generation_prompt %}{{ ' <think>' }}{% endif %}"
    seen: list[list[int]] = []

    async def generate(*, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        seen.append(prompt_ids)
        return Generation(token_ids=[5], logprobs=None, finish_reason="length")

    block = {"mode": Mode.LONG_COT, "system_prompt": "", "temperature": 0, "top_p": 1.0}
    environment = SimpleNamespace(limits=SimpleNamespace(token_budget=9))
    settings = EvaluationSettings.model_construct(**block, environment=environment)
    record = asyncio.run(SingleSolver(settings, tokenizer, generate)("start 1 ?", seed=0))
    assert tokenizer.decode(seen[0]).count("<think>") == 1
    assert record["stop_reason"] == "length"


def test_several_samples_differ_and_repeat(data: Path, models: dict[str, Path]) -> None:
    more = ["longshort.samples=3", "longshort.temperature=5.0"]
    first = evaluate(pair("first", data, models, *more))
    second = evaluate(pair("second", data, models, *more))
    one, two = (records_by_id(data.parent / f"{name}.jsonl") for name in ("first", "second"))
    assert one == two
    assert (first.problems, first.samples) == (6, 3)
    assert numbers(first) == {**numbers(second), "name": "first"}
    assert len({one[f"data/0/{sample}"] for sample in range(3)}) > 1


def numbers(summary: Summary) -> dict[str, Any]:
    """All that does not depend on the clock."""
    content = summary.to_json()
    for figures in (content, *content["benchmarks"].values()):
        assert figures.pop("seconds")["p50"] > 0
    return content


def records_by_id(path: Path) -> dict[str, str]:
    return {record["id"]: record["text"] for record in read_record_file(path)[1]}


def test_a_killed_evaluation_goes_on(data: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = data.parent / "L0S0.jsonl"
    more = ["longshort.samples=2", "longshort.temperature=5.0"]
    evaluate(pair("L0S0", data, models, *more))
    whole = records_by_id(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    answered: list[str] = []
    answer = runner._answer

    async def counted(task: runner.Task, *arguments: Any) -> Any:
        answered.append(task.id)
        return await answer(task, *arguments)

    monkeypatch.setattr(runner, "_answer", counted)
    evaluate(pair("L0S0", data, models, *more))
    assert len(answered) == 12 - 4
    assert records_by_id(path) == whole


def test_a_finished_evaluation_loads_no_model(
    data: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(pair("L0S0", data, models))
    monkeypatch.setattr(runner, "_solver", lambda *_: pytest.fail("a model was loaded"))
    assert evaluate(pair("L0S0", data, models)) == first


def test_records_of_other_settings_are_refused(data: Path, models: dict[str, Path]) -> None:
    evaluate(pair("L0S0", data, models))
    with pytest.raises(UserError, match=r"longshort\.seed = 7: .* was made with 0: remove it"):
        evaluate(pair("L0S0", data, models, "longshort.seed=7"))


def test_a_file_cut_within_its_header_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"name": "a')
    with RecordFile(path, {"name": "a"}) as file:
        assert file.records == []
        file.append({"id": "0/0"})
    assert read_record_file(path) == ({"name": "a"}, [{"id": "0/0"}])


MISTAKES = {
    "longshort.mode=alone": "longshort.mode = alone: must be one of pair, long_cot, direct, joint, plain",
    "longshort.mode=direct": "longshort.models.single = None: the mode direct needs it",
    "longshort.models.long=./nowhere": "longshort.models.long = ./nowhere: no such folder",
    "longshort.data=nowhere.parquet": "longshort.data = nowhere.parquet: no such file",
    "longshort.data=null": "longshort.benchmarks = []: give longshort.benchmarks=[math500,",
    "longshort.benchmarks=[gsm8k]": "longshort.benchmarks = gsm8k: is none of math500, aime24",
    "longshort.template=solve": "longshort.template = solve: must hold {problem}",
    "longshort.limit=0": "longshort.limit = 0: must be above 0",
    "longshort.samples=2": "longshort.samples = 2: greedy answers are all the same",
    "longshort.samples=0": "longshort.samples = 0: must be above 0",
    "longshort.temperature=-1": "longshort.temperature = -1: must be 0 (greedy) or more",
    "longshort.environment.max_turn=3": "longshort.environment.max_turn = 3: no such key",
}


@pytest.mark.parametrize(("override", "message"), MISTAKES.items(), ids=MISTAKES.keys())
def test_mistakes_are_named(data: Path, models: dict[str, Path], override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate(pair("L0S0", data, models, override))
    assert message in str(caught.value)
    assert not (data.parent / "L0S0.jsonl").exists()


def test_a_mistake_on_the_command_line_is_one_line() -> None:
    result = CliRunner().invoke(main, ["eval", "longshort.nam=x"])
    assert (result.exit_code, result.output) == (
        2,
        "Error: longshort.nam = x: no such key; did you mean longshort.name?\n",
    )


def test_rows_of_another_shape_are_refused(data: Path, models: dict[str, Path]) -> None:
    pd.DataFrame([{"prompt": "text", "reward_model": {"ground_truth": "1"}}]).to_parquet(data)
    with pytest.raises(UserError, match=r"row 1: needs prompt"):
        evaluate(pair("L0S0", data, models))


def test_the_table(data: Path, models: dict[str, Path]) -> None:
    evaluate(overrides("long CoT", data, "longshort.mode=long_cot", single=models["single"]))
    evaluate(pair("L0S0", data, models, "longshort.limit=null"))
    files = [data.parent / "long CoT.jsonl", data.parent / "L0S0.jsonl"]
    shown = io.StringIO()
    markdown, json_file = data.parent / "table.md", data.parent / "table.json"
    console = Console(file=shown, width=200)
    rows = show_table(files, base=None, markdown=markdown, json_file=json_file, console=console)
    assert rows[0].score is not None
    assert rows[0].score.value == 0
    assert "16.7 [3.0, 56.4]" in shown.getvalue()
    caption = "6 problems, one answer each; temperature 0.0, seed 0; AES relative to long CoT; in brackets"
    assert caption in shown.getvalue()
    assert json.loads(json_file.read_text())[0]["run"]["benchmarks"][0]["name"] == "data"
    assert "L0S0" in markdown.read_text()
    assert json.loads(json_file.read_text())[1]["aes"]["value"] == 0
    assert "6 problems, one answer each" in as_markdown(load_rows(files, "L0S0"))


@pytest.mark.parametrize("mode", ["long_cot", "direct", "plain", "early_stop"])
def test_an_answer_that_never_fits_is_refused_before_a_model_is_loaded(
    data: Path, models: dict[str, Path], mode: str
) -> None:
    given = ("longshort.environment.token_budget=256", f"longshort.mode={mode}")
    with pytest.raises(UserError, match=r"token_budget = 256: does not fit into the 256 positions of"):
        evaluate(overrides("none", data, *given, single=models["single"]))


def test_a_table_without_aes_says_why(data: Path, models: dict[str, Path]) -> None:
    evaluate(overrides("none", data, "longshort.mode=plain", single=models["long"]))
    evaluate(pair("L0S0", data, models))
    text = data.parent / "table.txt"
    files = [data.parent / "none.jsonl", data.parent / "L0S0.jsonl"]
    rows = show_table(files, base=None, markdown=None, json_file=None, console=Console(), text=text)
    assert [row.score for row in rows] == [None, None]
    assert "no AES: none, its base, has no correct answer" in " ".join(text.read_text().split())
    assert "AES relative to L0S0" in as_markdown(load_rows(files, "L0S0"))


def test_tables_that_would_mislead_are_refused(data: Path, models: dict[str, Path]) -> None:
    evaluate(pair("all", data, models))
    evaluate(pair("some", data, models, "longshort.limit=2"))
    files = [data.parent / "all.jsonl", data.parent / "some.jsonl"]
    with pytest.raises(UserError, match="about other problems"):
        load_rows(files, None)
    with pytest.raises(UserError, match="base = none: is none of the rows"):
        load_rows(files[:1], "none")
    lines = files[0].read_text().splitlines(keepends=True)
    files[0].write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="has 5 of 6 answers"):
        load_rows(files[:1], None)


def test_a_base_without_a_right_answer_gives_no_score(data: Path, models: dict[str, Path]) -> None:
    evaluate(pair("asking", data, models, short="asking"))
    (row,) = load_rows([data.parent / "asking.jsonl"], None)
    assert row.score is None
    assert "–" in overview([row]).lines[0]


def test_means_are_over_problems() -> None:
    def record(index: int, correct: bool, tokens: int) -> dict[str, Any]:
        return {
            "id": f"test/{index}/{tokens}",
            "benchmark": "test",
            "problem_index": index,
            "correct": correct,
            "answer": "4",
            "tokens": {"long": tokens, "short": 1},
            "turns": [{"text": "<think> so"}, {"text": "<answer> 4"}],
            "rethinks": index,
            "seconds": 1.5,
            "stop_reason": "answered",
        }

    summary = summarise("x", [record(0, True, 9), record(0, False, 19), record(1, True, 29)])
    assert summary.accuracy.value == pytest.approx(0.75)
    assert summary.tokens.value == pytest.approx((15 + 30) / 2)
    assert summary.rethink_rate == 0.5


def test_a_stuck_engine_is_noticed() -> None:
    async def stuck(item: int) -> None:
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError, match="no trajectory has finished"):
        asyncio.run(run_bounded([1, 2], stuck, lambda _: None, limit=2, timeout_s=0.1))


def test_work_is_bounded_and_errors_pass_through() -> None:
    running = most = 0

    async def work(item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        if item == 8:
            raise KeyError(item)
        return item

    kept: list[int] = []
    asyncio.run(run_bounded(range(8), work, kept.append, limit=3, timeout_s=5))
    assert (sorted(kept), most) == (list(range(8)), 3)
    with pytest.raises(KeyError):
        asyncio.run(run_bounded(range(9), work, kept.append, limit=3, timeout_s=5))


@pytest.mark.parametrize(
    ("mode", "reason", "correct"),
    [
        (Mode.PAIR, StopReason.ANSWERED, True),
        (Mode.PAIR, StopReason.TURN_CUT, False),
        (Mode.PAIR, StopReason.TOKEN_BUDGET, False),
        (Mode.JOINT, StopReason.ANSWERED, True),
        (Mode.JOINT, "length", False),
        (Mode.PLAIN, "length", True),
    ],
)
def test_a_trajectory_that_never_answered_is_not_correct(mode: Mode, reason: str, correct: bool) -> None:
    async def solver(problem: str, *, seed: int) -> Any:
        return {"turns": [], "text": r"2 and 2, so \boxed{4}", "stop_reason": reason, "tokens": {}, "rethinks": 0}

    task = runner.Task(id="a/0/0", problem=Problem(source="a", index=0, text="2+2", ground_truth="4"), seed=0)
    settings = EvaluationSettings.model_construct(mode=mode, answer_timeout_s=5.0)
    record = asyncio.run(runner._answer(task, solver, settings))
    assert record["correct"] is correct
    assert record["text"].endswith(r"\boxed{4}")
