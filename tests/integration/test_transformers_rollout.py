"""The transformers rollout as verl starts and feeds it: replicas, adapter and servers over real Ray."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.harness import run_command

PROGRAM = Path(__file__).parents[1] / "helpers" / "rollout_probe.py"

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def seen(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = [sys.executable, str(PROGRAM), str(tiny_model)]
    log = tmp_path_factory.mktemp("rollout") / "log.txt"
    finished = run_command(command, log=log, timeout_s=240).expect_success()
    line = next(line for line in finished.output.splitlines() if line.startswith("SEEN "))
    return json.loads(line.removeprefix("SEEN "))


def test_policies_of_one_run_have_servers_of_their_own(seen: dict[str, Any]) -> None:
    assert seen["addresses"] == ["transformers_long_server_0_0", "transformers_short_server_0_0"]


def test_weights_arrive_whole_and_only_where_sent(seen: dict[str, Any]) -> None:
    assert seen["after"] == seen["trained"] != seen["before"]
    assert seen["frozen"] == seen["before"]
    assert "left out" in seen["incomplete"]


def test_output_carries_logprobs_and_version_and_the_next_turn_reuses_the_cache(seen: dict[str, Any]) -> None:
    first, second = seen["first"], seen["second"]
    assert len(first["token_ids"]) == len(first["log_probs"]) == 8
    assert first["stop_reason"] == "completed"
    assert first["extra_fields"] == {"global_steps": 7, "finish_reason": "length", "num_cached_tokens": 0}
    assert second["extra_fields"]["num_cached_tokens"] == 4 + 8 - 1


def test_request_without_limit_fills_the_row(seen: dict[str, Any]) -> None:
    assert seen["unlimited"] == 2048 - 4


def test_bad_sampling_key_reaches_the_caller_by_name(seen: dict[str, Any]) -> None:
    assert "beams" in seen["bad_key"]


def test_abort_returns_partial_output_rejects_and_resumes(seen: dict[str, Any]) -> None:
    assert seen["aborted"]["stop_reason"] == "aborted"
    assert 0 < len(seen["aborted"]["token_ids"]) < 400
    assert seen["rejected"]["stop_reason"] == "aborted"
    assert seen["rejected"]["token_ids"] == []
    assert len(seen["resumed"]["token_ids"]) > 0
