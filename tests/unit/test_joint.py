"""One model that writes a pair's trajectories alone: what it is taught, and that it is judged as the pair is."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.tiny_tokenizers import byte_level
from longshort_reward import Ramp, RewardWeights
from longshort_reward.protocol import ROLES, STOP_STRINGS, Role, RolePrompts, parse_trajectory

from verl_longshort.core.environment import Limits
from verl_longshort.core.trajectory import Generation, Participant
from verl_longshort.data.sft_dataset import TrajectoryDataset
from verl_longshort.evaluation import runner
from verl_longshort.evaluation.settings import EvaluationSettings, Mode
from verl_longshort.evaluation.solvers import PairSolver, SingleSolver
from verl_longshort.problems.reader import Problem
from verl_longshort.verl_plugin.trainer.group_reward import reward_rows
from verl_longshort.world.tiny_tokenizer import build_tokenizer

TOKENIZERS = {"words": build_tokenizer, "bytes": byte_level}
PROBLEM = "start 7 ; a ( 5 1 ) ; b 9 ?"
ASKED = [
    "<think> list a : 5 + 7 = 2 so a = 3 . </think>",
    "<answer> so b </rethink>",
    "<think> step b 9 + 3 = 2 . </think>",
    "<answer> \\boxed{ 2 } </answer>",
]
AT_ONCE = ["<think> step b 9 + 3 = 2 . </think>", "<answer> \\boxed{ 2 } </answer>"]


def role_of(index: int) -> Role:
    return ROLES[index % 2]


def rows(tmp_path: Path, tokenizer: Any, role: str, turns: Sequence[str], system: str = "") -> TrajectoryDataset:
    record = {"problem": PROBLEM, "turns": [{"role": role_of(k), "text": text} for k, text in enumerate(turns)]}
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(record) + "\n")
    config = {"role": role, "prompts": {"long": system, "short": system}, "max_length": 999}
    return TrajectoryDataset(str(file), tokenizer, config)


@pytest.mark.parametrize("turns", [ASKED, AT_ONCE], ids=["asked again", "at once"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_text_that_is_taught_is_the_trajectory(tmp_path: Path, name: str, turns: list[str]) -> None:
    tokenizer = TOKENIZERS[name]()
    (row,) = rows(tmp_path, tokenizer, "alone", turns).rows
    taught = tokenizer.decode(row["input_ids"][row["loss_mask"] == 1], skip_special_tokens=True)
    parsed = parse_trajectory(taught)
    assert [turn.text for turn in parsed] == turns
    assert [turn.role for turn in parsed] == [role_of(k) for k in range(len(turns))]
    assert all(turn.ok for turn in parsed)
    # nothing stands between the turns, and nothing of the prompt is taught
    first = int(row["loss_mask"].argmax())
    assert row["loss_mask"].tolist() == [0] * first + [1] * (len(row["loss_mask"]) - first)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_one_model_and_two_are_taught_the_same_tokens(tmp_path: Path, name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    (alone,) = rows(tmp_path, tokenizer, "alone", ASKED).rows
    both = rows(tmp_path, tokenizer, "both", ASKED).rows
    assert len(both) == 2
    assert all(row["input_ids"].tolist() == alone["input_ids"].tolist() for row in both)
    assert (both[0]["loss_mask"] + both[1]["loss_mask"]).tolist() == alone["loss_mask"].tolist()


def test_its_system_prompt_comes_first(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    row, plain = (rows(tmp_path, tokenizer, "alone", ASKED, system).rows[0] for system in ("so we check", ""))
    before, after = (tokenizer.decode(one["input_ids"][one["loss_mask"] == 0]) for one in (row, plain))
    assert "so we check" in before
    assert "so we check" not in after
    assert row["loss_mask"].sum() == plain["loss_mask"].sum()


SAID = {
    "asked again": ASKED,
    "at once": AT_ONCE,
    "wrong": [AT_ONCE[0], "<answer> \\boxed{ 3 } </answer>"],
    "no answer in the box": [AT_ONCE[0], "<answer> so </answer>"],
    "two thoughts in a row": ["<think> so </think>", *ASKED[2:]],
    "an answer in a thought": ["<think> so <answer> \\boxed{ 2 } </answer>"],
    "an empty thought": ["<think> </think>", *AT_ONCE[1:]],
    "no thought": AT_ONCE[1:],
    "a tag inside an answer": [AT_ONCE[0], "<answer> <think> so </think> \\boxed{ 2 } </answer>"],
    "words before a turn": ["so <think> so </think>", *AT_ONCE[1:]],
    "truncated in a thought": [*ASKED[:2], "<think> step b 9 + 3 = 2 so \\boxed{ 2 }"],
    "truncated in an answer": [AT_ONCE[0], "<answer> \\boxed{ 2 }"],
}
TOKENIZER = build_tokenizer()
LIMITS = Limits(max_turns=8, long_turn_tokens=60, short_turn_tokens=60, token_budget=60)


class Writer:
    """An engine that writes given words, up to the first of its stop strings or all that is allowed."""

    def __init__(self, text: str) -> None:
        self.left = TOKENIZER.encode(text, add_special_tokens=False)

    async def __call__(self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        stops = [TOKENIZER.encode(stop, add_special_tokens=False)[0] for stop in sampling["stop"]]
        end = next((index + 1 for index, token in enumerate(self.left) if token in stops), None)
        said, self.left = self.left[: end or len(self.left)], self.left[end or len(self.left) :]
        return Generation(token_ids=said, logprobs=None, finish_reason="stop" if end else "length")


def evaluated(mode: Mode, text: str) -> dict[str, Any]:
    """The record of the answer `text`, graded."""
    prompts = SimpleNamespace(role_prompts=RolePrompts(long="", short=""))
    environment = SimpleNamespace(limits=LIMITS, prompts=prompts)
    block = {"mode": mode, "system_prompt": "", "temperature": 0.0, "top_p": 1.0, "answer_timeout_s": 5}
    settings = EvaluationSettings.model_construct(**block, environment=environment)
    writer = Writer(text)
    solver: Any = SingleSolver(settings, TOKENIZER, writer)
    if mode is Mode.PAIR:
        solver = PairSolver(settings, {role: Participant(tokenizer=TOKENIZER, generate=writer) for role in ROLES})
    problem = Problem(source="test", index=0, text=PROBLEM, ground_truth="2")
    return asyncio.run(runner._answer(runner.Task(id="test/0/0", problem=problem, seed=0), solver, settings))


@pytest.mark.parametrize("name", SAID)
def test_it_is_graded_as_the_pair_is(name: str) -> None:
    text = " ".join(SAID[name])
    pair, alone = evaluated(Mode.PAIR, text), evaluated(Mode.JOINT, text)
    assert (alone["correct"], alone["answer"]) == (pair["correct"], pair["answer"])
    assert (alone["stop_reason"] == "answered") == (pair["stop_reason"] == "answered")
    assert pair["correct"] is (name in ("asked again", "at once"))
    if pair["stop_reason"] == "answered":
        assert alone["text"].split() == pair["text"].replace("><", "> <").split()
        assert alone["tokens"] == {"single": sum(pair["tokens"].values())}
        assert alone["rethinks"] == pair["rethinks"] == (name == "asked again")


def test_a_single_answer_is_more_leniently_graded_than_a_trajectory() -> None:
    text = " ".join(SAID["two thoughts in a row"])
    assert evaluated(Mode.PLAIN, text)["correct"]
    assert not evaluated(Mode.JOINT, text)["correct"]


def test_the_stop_string_is_that_of_the_whole_answer() -> None:
    asked: dict[str, Any] = {}

    async def generate(**request: Any) -> Generation:
        asked.update(request["sampling"])
        return await Writer(" ".join(ASKED))(**request)

    environment = SimpleNamespace(limits=LIMITS)
    block = {"mode": Mode.JOINT, "system_prompt": "", "temperature": 0.0, "top_p": 1.0}
    solver = SingleSolver(EvaluationSettings.model_construct(**block, environment=environment), TOKENIZER, generate)
    record = asyncio.run(solver(PROBLEM, seed=0))
    assert asked["stop"] == [STOP_STRINGS[Role.SHORT][0]]
    # nothing is written for the model
    assert (asked["max_tokens"], record["tokens"]["single"]) == (60, len(TOKENIZER.encode(" ".join(ASKED))))


def test_asking_itself_is_paid_as_asking_a_partner_is() -> None:
    """Of four trajectories two ask again and are correct; answering at once fails every other time."""
    weights = RewardWeights(mu=Ramp(start=0.0, end=0.0, begin_step=0, end_step=1), rethink=0.1)
    outcomes = [(1.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)]
    shared = {"tokens": 10.0, "stop_reason": "answered"}
    alone = [{**shared, "acc": acc, "format": 1.0, "rethinks": rethinks} for acc, rethinks in outcomes]
    more = {"fault_role": "", **{f"{kind}_{role}": 1.0 for kind in ("format", "turns") for role in ROLES}}
    pair = [{**shared, "acc": acc, "rethinks": rethinks, **more} for acc, rethinks in outcomes]
    own = reward_rows([f"u_{session}_0" for session in range(4)], alone, weights, 1)
    keys = [f"u_{session}_{index}" for session in range(4) for index in (0, 1)]
    theirs = reward_rows(keys, [fact for fact in pair for _ in (0, 1)], weights, 1)
    assert [own[f"u_{session}_0"].terms["rethink"] for session in range(4)] == [0.5, 0.5, 0.0, 0.0]
    for session in range(4):
        # all that the role with the credit gets, since format and answer are the same for both
        assert own[f"u_{session}_0"].total == pytest.approx(theirs[f"u_{session}_1"].total)
