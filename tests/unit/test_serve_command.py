"""`longshort serve` as a command: its options, what it refuses to start with, and how it stops."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.exported import LIMITS, PROMPTS, exported
from helpers.serving import NO_PROMPTS, save_word_models
from longshort_reward.errors import UserError
from longshort_reward.protocol import ROLES, Role

from verl_longshort.serve.settings import ServeSettings
from verl_longshort.stages.serve import ServeStage

WATCHDOG_S = 240


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_word_models(tmp_path_factory.mktemp("models"))


def settings(models: dict[str, Path], *overrides: str, **options: Any) -> ServeSettings:
    own = [f"longshort.models.long={models['long']}", f"longshort.models.short={models['short']}", NO_PROMPTS]
    return ServeStage().settings(overrides=[*own, *overrides], **options)


def test_options_are_keys(models: dict[str, Path]) -> None:
    made = settings(models, long_url="http://a/v1", short_url="http://a/v1", port=81, host=None)
    assert (made.endpoint.base_url.long, made.endpoint.base_url.short) == ("http://a/v1", "http://a/v1")
    assert (made.host, made.port, made.runs_here) == ("127.0.0.1", 81, False)


def test_an_exported_pair_says_how_it_is_used(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    made = ServeStage().settings(overrides=[f"longshort.pair={folder}", "longshort.environment.max_turns=2"])
    assert made.model_paths == {role: str(folder / role) for role in ROLES}
    assert made.limits.model_dump() == {**LIMITS, "max_turns": 2}
    assert (made.prompts, made.template, made.temperature) == (PROMPTS, "{problem}", 0.0)
    behind = ServeStage().settings(
        overrides=[f"longshort.pair={folder}", "longshort.models={long: a, short: b}"],
        long_url="http://a/v1",
        short_url="http://a/v1",
    )
    assert (behind.model_paths[Role.LONG], behind.tokenizer_path(Role.LONG)) == ("a", str(folder / "long"))


MISTAKES = {
    "models.long=null": "longshort.models.long = None: is needed",
    "models.long=./none": "longshort.models.long = ./none: no such folder",
    "endpoint.base_url.long=http://a": "longshort.endpoint.base_url.short = None: is needed when",
    "host=0.0.0.0": "longshort.api_key_env = None: longshort.host is 0.0.0.0; others can reach it",
    "api_key_env=NO_SUCH_KEY": "longshort.api_key_env = NO_SUCH_KEY: no such environment variable",
    "api_key_env=EMPTY_KEY": "longshort.api_key_env = EMPTY_KEY: the environment variable is empty",
    "name='a b'": "longshort.name = a b: must be a word without a colon",
    "port=70000": "longshort.port = 70000: must be a port",
}


@pytest.mark.parametrize(("override", "message"), MISTAKES.items(), ids=MISTAKES)
def test_mistakes_are_named(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    monkeypatch.setenv("EMPTY_KEY", "")
    with pytest.raises(UserError, match=re.escape(message)):
        settings(models, f"longshort.{override}")


def test_a_server_that_is_stopped_ends_its_answers_first(models: dict[str, Path]) -> None:
    more = ["longshort.environment.long_turn_tokens=200", "longshort.environment.token_budget=240"]
    own = [f"longshort.models.long={models['endless']}", f"longshort.models.short={models['short']}", NO_PROMPTS]
    command = [sys.executable, "-m", "verl_longshort.cli", "serve", "--port", "0", *own, *more]
    environment = {**os.environ, "PAIR_KEY": "a-secret"}
    with subprocess.Popen(
        [*command, "longshort.api_key_env=PAIR_KEY"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            said = ""
            while not (found := re.search(r"served on (http://\S+/v1), with the key in PAIR_KEY", said)):
                line = server.stdout.readline()
                assert line, said
                said += line
            body = {"model": "longshort", "messages": [{"role": "user", "content": "2 ?"}], "stream": True}
            with httpx.stream(
                "POST",
                f"{found.group(1)}/chat/completions",
                json=body,
                headers={"authorization": "Bearer a-secret"},
                timeout=WATCHDOG_S,
            ) as reply:
                parts = reply.iter_lines()
                next(parts)
                server.send_signal(signal.SIGTERM)
                rest = list(parts)
            assert rest[-2:] == ["data: [DONE]", ""]
            said += server.stdout.read()
            assert server.wait(WATCHDOG_S) == 0, said
            assert "a-secret" not in said
        finally:
            server.kill()
