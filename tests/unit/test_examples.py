"""Every example that starts no trainer, run as its user runs it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.llm_server import Body, completion, serve
from helpers.run import make_run
from helpers.speakers import shuffled_tokenizer
from helpers.tiny_tokenizers import byte_level
from helpers.word_models import FOLLOWING, save_model, save_successors
from longshort_reward import match_answer
from test_endpoint_eval import word_server
from transformers import LlamaConfig, LlamaForCausalLM

from verl_longshort.base.journal import read_record_file

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES / "trl_grpo"))
import reward as trl_reward  # noqa: E402


def start(*command: str | Path, **environment: str) -> str:
    """What an example prints; the commands of this environment are on its PATH."""
    bins = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": bins, "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_described() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {folder for folder in folders if f"]({folder}/" in readme} == folders


@pytest.fixture
def tagged() -> list[str]:
    """A right answer, a longer right one, and a wrong one."""
    return [rf"<think>{'so ' * n}</think><answer>\boxed{{{a}}}</answer>" for n, a in ((1, 4), (9, 4), (1, 5))]


def test_trl_each_completion_by_itself(tagged: list[str]) -> None:
    columns: dict[str, Any] = {"ground_truth": ["4"] * 4, "prompts": ["?"] * 4, "level": [1] * 4}
    scores = trl_reward.answer_and_format([*tagged, r"\boxed{4}"], **columns)
    assert scores == pytest.approx([1.1, 1.1, 0.1, 1.0])
    messages = [[{"role": "assistant", "content": text}] for text in tagged]
    assert trl_reward.answer_and_format(messages, ["4"] * 3) == pytest.approx([1.1, 1.1, 0.1])


def test_trl_the_length_term_compares_the_completions_of_a_problem(tagged: list[str]) -> None:
    ids = [[0] * 20, [0] * 90, [0] * 20] * 2
    given: dict[str, Any] = {"completions": tagged * 2, "completion_ids": ids, "ground_truth": ["4"] * 3 + ["5"] * 3}
    prompts = ["2 + 2"] * 3 + ["2 + 3"] * 3
    early = trl_reward.synergy(prompts, trainer_state=SimpleNamespace(global_step=0), **given)
    assert early == pytest.approx([1.1, 1.1, 0.1, 0.1, 0.1, 1.1])
    late = trl_reward.synergy(prompts, trainer_state=SimpleNamespace(global_step=100), **given)
    assert late[0] > late[1] > late[2]
    with pytest.raises(ValueError, match="multiple of num_generations"):
        trl_reward.synergy([*prompts[:5], "other"], trainer_state=SimpleNamespace(global_step=0), **given)


def test_chains_of_your_own_become_a_cold_start(tmp_path: Path) -> None:
    tokenizer = byte_level()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    chains = EXAMPLES / "cold_start" / "chains.jsonl"
    answers = {row["problem"]: row["ground_truth"] for row in map(json.loads, chains.read_text().splitlines())}

    async def shorten(body: Body) -> Any:
        """Fills every gap; the last filling has the answer."""
        asked = body["messages"][0]["content"]
        (answer,) = [answer for problem, answer in answers.items() if problem in asked]
        gaps = sorted({int(number) for number in re.findall(r"\[GAP (\d+)", asked)})
        texts = ["In short." for _ in gaps[1:]] + [rf"So \boxed{{{answer}}}."]
        return completion(json.dumps([{"gap": gap, "text": text} for gap, text in zip(gaps, texts, strict=True)]))

    with serve(shorten) as server:
        small = ("longshort.samples=1", "longshort.max_tokens=4")
        printed = start(
            "bash", EXAMPLES / "cold_start" / "run.sh", chains, tmp_path, tmp_path / "base", server.url, "llm", *small
        )
    rows = [json.loads(line) for line in (tmp_path / "cold_start" / "train.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["shop", "train", "squares", "ages"]
    assert all(match_answer("".join(t["text"] for t in row["turns"]), row["ground_truth"]) for row in rows)
    assert "trajectories" in printed


def test_two_families_solve_a_problem_together(tmp_path: Path) -> None:
    long = save_model(tmp_path / "long", FOLLOWING["long"])
    tokenizer = shuffled_tokenizer()
    ids = tokenizer.get_vocab()
    following = {ids[word]: ids[successor] for word, successor in FOLLOWING["short"].items()}
    short = save_successors(tmp_path / "short", tokenizer, following)
    command = [sys.executable, EXAMPLES / "two_families" / "solve.py", "--no-prompts", "--long", long, "--short", short]
    printed = start(*command, "start 2 ; a 2 ?")
    assert "long (3 tokens of long, 3 tokens of short): <think> so </think>" in printed
    assert r"short (5 tokens of long, 5 tokens of short): <answer> \boxed{ 4 } </answer>" in printed
    assert "ended as: answered" in printed


def test_a_pair_behind_endpoints_is_evaluated(tmp_path: Path) -> None:
    models = {role: save_model(tmp_path / role, FOLLOWING[role]) for role in ("long", "short")}
    problems = tmp_path / "problems.jsonl"
    rows = [{"problem": f"start {digit} ; a {digit} ?", "answer": str(2 * digit % 10)} for digit in range(4)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serve(word_server()) as server:
        folders = {f"{role.upper()}_TOKENIZER": str(folder) for role, folder in models.items()}
        arguments = ["long", "short", problems, tmp_path / "out", "longshort.environment.prompts={long:'',short:''}"]
        where = {"LONG_URL": server.url, "SHORT_URL": server.url}
        printed = start("bash", EXAMPLES / "endpoints" / "run.sh", *arguments, **where, **folders)
    _, records = read_record_file(tmp_path / "out" / "pair.jsonl")
    # in the order in which they were answered
    assert {record["problem_index"]: record["correct"] for record in records} == {0: False, 1: False, 2: True, 3: False}
    assert "25.0" in printed


def test_the_notebook_reads_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "notebook" / "run.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells), "the committed notebook has no outputs"
    monkeypatch.setenv("RUN", str(make_run(tmp_path)))
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [kind for cell in cells for output in cell.outputs for kind in output.get("data", {})]
    assert shown.count("image/png") == 3
    printed = "".join(output.get("text", "") for output in cells[-1].outputs)
    assert "long" in printed
    assert cells[0].outputs[0]["text"].startswith("5 evaluations")
