"""Trajectories of a training step as they are written down: which groups, and what of each."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transfer_queue
from longshort_reward import RewardWeights
from longshort_reward.errors import UserError
from pydantic import TypeAdapter
from transfer_queue import KVBatchMeta

from verl_longshort.config.pair import LoggedGroups
from verl_longshort.core.environment import StopReason
from verl_longshort.core.single_model import SingleAnswer
from verl_longshort.data.training_trajectories import chosen_groups, problem_id, read_steps
from verl_longshort.verl_plugin.rollout.agent_loop import answer_record
from verl_longshort.verl_plugin.trainer import sampled
from verl_longshort.verl_plugin.trainer.sampled import log_step

WEIGHTS = RewardWeights.from_config(
    {"eta": 1.0, "lambda": 0.1, "mu": {"start": 0.2, "end": 0.2, "begin_step": 0, "end_step": 1}, "rethink": 0.1}
)
ROLES = ("long", "short")


class Queue:
    """Stands in for TransferQueue: rows with the fields that a step leaves there."""

    def __init__(self, problems: Sequence[str], sessions: int, *, learners: Sequence[str] = ("long",)) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        for group, problem in enumerate(problems):
            for session in range(sessions):
                record = pair_record(problem, session)
                for place, role in enumerate(ROLES):
                    row: dict[str, Any] = {
                        "extra_fields": {"record": record, "reward_extra_info": facts(record, correct=session == 0)},
                        "reward_model": {"ground_truth": "3"},
                    }
                    if role in learners:
                        row["advantages"] = torch.tensor([0.5, 0.7, 9.0]) * (session + 1)
                        row["response_mask"] = torch.tensor([1, 1, 0])
                    self.rows[f"g{group}_{session}_{place}"] = row

    def batch(self, keys: Sequence[str] | None = None) -> KVBatchMeta:
        keys = list(self.rows if keys is None else keys)
        padded = [*keys, "padding_0_0"]
        return KVBatchMeta(partition_id="train", keys=padded, tags=[*({} for _ in keys), {"is_padding": True}])

    def get(self, *, keys: Sequence[str], partition_id: str, select_fields: Sequence[str]) -> Mapping[str, Any]:
        assert len({key[-1] for key in keys}) == 1, "two roles in one request"
        return {field: [self.rows[key][field] for key in keys] for field in select_fields}


def pair_record(problem: str, session: int) -> dict[str, Any]:
    return {
        "problem": problem,
        "turns": [
            {"role": "long", "text": "<think>\u20281 + 2</think>", "tokens": 4, "fault": None},
            {"role": "short", "text": "<answer>3</answer>", "tokens": 2 + session, "fault": None},
        ],
        "stop_reason": "answered",
        "fault_role": None,
        "tokens": {"long": 4, "short": 2 + session},
        "rethinks": 0,
    }


def facts(record: Mapping[str, Any], *, correct: bool) -> dict[str, Any]:
    tokens = sum(record["tokens"].values())
    told = {"acc": float(correct), "tokens": tokens, "rethinks": 0, "stop_reason": "answered", "fault_role": ""}
    return {**told, "format_long": True, "format_short": True, "turns_long": 1, "turns_short": 1}


def log(monkeypatch: pytest.MonkeyPatch, queue: Queue, root: Path, *, count: int | None, step: int = 1) -> None:
    monkeypatch.setattr(transfer_queue, "kv_batch_get", queue.get)
    learned = queue.batch([key for key, row in queue.rows.items() if "advantages" in row])
    log_step(root, queue.batch(), [learned], count=count, weights=WEIGHTS, step=step, round_name="L1")


def test_a_trajectory_is_there_with_all_that_came_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log(monkeypatch, Queue(["1 + 2 ?"], 3), tmp_path, count=None)
    file = tmp_path / "trajectories" / "step_1.jsonl"
    assert file.read_bytes().count(b"\n") == 3
    first, second, _ = read_steps(tmp_path)
    assert (first.step, first.round, first.group, first.session) == (1, "L1", 0, 0)
    assert (first.problem, first.ground_truth, first.problem_id) == ("1 + 2 ?", "3", problem_id("1 + 2 ?"))
    assert [(turn.role, turn.tokens) for turn in first.turns] == [("long", 4), ("short", 2)]
    assert first.tokens == {"long": 4, "short": 2}
    assert (first.correct, second.correct, first.stop_reason) == (True, False, "answered")
    assert first.weights == {"em": 1.0, "fm": 0.1, "lm": 0.2, "rethink": 0.1}
    long, short = first.rewards["long"], first.rewards["short"]
    assert long.terms["em"] == 1.0
    assert long.total == pytest.approx(sum(first.weights[name] * value for name, value in long.terms.items()))
    # the mean over the tokens that the role wrote itself, and none for a role that did not learn
    assert long.advantage == pytest.approx(0.6)
    assert second.rewards["long"].advantage == pytest.approx(1.2)
    assert short.advantage is None
    assert not short.neutral


def test_the_same_problems_are_logged_again_where_data_repeats(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    problems = [f"{number} + 1 ?" for number in range(40)]
    expected = sorted(problems, key=problem_id)[:4]
    for step, order in ((1, problems), (2, problems[::-1])):
        log(monkeypatch, Queue(order, 2), tmp_path, count=4, step=step)
    logged = list(read_steps(tmp_path))
    for step in (1, 2):
        assert [one.problem for one in logged if one.step == step and one.session == 0] == expected
        assert sorted({one.group for one in logged if one.step == step}) == [0, 1, 2, 3]
    assert len(logged) == 2 * 4 * 2


def test_a_step_that_is_done_again_replaces_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for problem in ("before", "after"):
        log(monkeypatch, Queue([problem], 2), tmp_path, count=4, step=7)
    assert [one.problem for one in read_steps(tmp_path)] == ["after", "after"]


def test_steps_are_read_in_their_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for step in (10, 9, 100):
        log(monkeypatch, Queue(["a"], 1), tmp_path, count=1, step=step)
    assert [one.step for one in read_steps(tmp_path)] == [9, 10, 100]


def test_none_is_logged_on_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log(monkeypatch, Queue(["a"], 1), tmp_path, count=0)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_ends_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sampled, "write_step", full)
    with pytest.raises(UserError, match=r"longshort\.log_groups = all: .*No space left.*set 0"):
        log(monkeypatch, Queue(["a"], 1), tmp_path, count=None)


@pytest.mark.parametrize(("given", "kept"), [(0, 0), (4, 4), ("all", None)])
def test_how_many_groups(given: Any, kept: int | None) -> None:
    assert TypeAdapter(LoggedGroups).validate_python(given) == kept
    assert len(chosen_groups({"g": "a", "h": "b"}, kept)) == (2 if kept is None else min(2, kept))


def test_a_single_models_answer_has_the_same_record() -> None:
    answer = SingleAnswer(
        prompt_ids=[1],
        token_ids=[2, 3],
        logprobs=None,
        text="<answer> 3",
        tokens=3,
        stop_reason=StopReason.TOKEN_BUDGET,
        finish_reason="length",
        extra={},
    )
    record = answer_record("1 + 2 ?", answer)
    assert record.keys() == pair_record("", 0).keys()
    assert record["turns"] == [{"role": "single", "text": "<answer> 3", "tokens": 3, "fault": None}]
    assert json.loads(json.dumps(record)) == record
