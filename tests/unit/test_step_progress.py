"""How many problems of a step are done is told while trajectories are generated."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import verl.trainer.ppo.v1  # noqa: F401  # it loads the trainers

from verl_longshort.base import progress
from verl_longshort.verl_plugin.trainer import replay
from verl_longshort.verl_plugin.trainer.replay import PairReplayBuffer, WatchedReplayBuffer


@pytest.mark.parametrize(
    ("partition", "step", "told"),
    [
        ("train", 3, {"done": 2, "total": 6, "message": "step 3/6: generating trajectories, 2 of 4 problems"}),
        ("val", 0, {"done": 0, "total": 0, "message": "step 0/6: validating, 2 of 4 problems"}),
    ],
)
def test_problems_of_a_step(
    partition: str, step: int, told: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "progress.json"
    monkeypatch.setenv(progress.VARIABLE, str(file))
    monkeypatch.setattr(WatchedReplayBuffer, "_wait_for_next_poll", lambda *_: 7.0)
    buffer = PairReplayBuffer.__new__(PairReplayBuffer)
    buffer.finished_keys = defaultdict(set, {partition: {"a", "b"}})
    buffer._total, buffer._asked, buffer._told_at = 6, (step, 4), 0.0
    assert buffer._wait_for_next_poll(partition, 0.0) == 7.0
    assert json.loads(file.read_text()) == told
    # not at every poll
    file.unlink()
    monkeypatch.setattr(replay, "TELL_S", 60.0)
    buffer._wait_for_next_poll(partition, 0.0)
    assert not file.exists()
