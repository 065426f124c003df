"""`longshort chat`: questions, commands and pipes, with tiny models in this process."""

import io
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.exported import exported
from helpers.word_models import FOLLOWING, save_model
from longshort_reward.errors import UserError
from longshort_reward.protocol import Closing, Role
from rich.console import Console

from verl_longshort.base.errors import UnavailableError
from verl_longshort.base.stage import execute
from verl_longshort.chat.effort import options_of
from verl_longshort.chat.screen import Screen, printable
from verl_longshort.chat.session import Chat, Session
from verl_longshort.chat.settings import ChatSettings
from verl_longshort.core.environment import Limits, StopReason
from verl_longshort.serve.events import Answered, Event, TextDelta, TurnEnded, TurnStarted
from verl_longshort.stages.chat import ChatStage

QUESTION = "start 2 ; a 2 ?"
ANSWER = "\\boxed{ 4 }"
_COMMANDS = re.compile("\x1b\\[[?0-9;]*[a-zA-Z]|\r")
LIMITS = Limits(max_turns=4, long_turn_tokens=60, short_turn_tokens=40, token_budget=100)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long model that thinks on and on."""
    return save_model(tmp_path_factory.mktemp("endless"), {**FOLLOWING["long"], "so": "so"})


@pytest.fixture(scope="module")
def session(pair: Path) -> Iterator[tuple[Session, ChatSettings]]:
    settings = settings_of(f"longshort.pair={pair}")
    with Session(settings) as opened:
        yield opened, settings


def settings_of(*arguments: str) -> ChatSettings:
    return ChatStage().settings(overrides=arguments)


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=70, height=20, color_system=None)


def chatted(session: tuple[Session, ChatSettings], *lines: str) -> str:
    """What the terminal shows of a chat in which these lines are typed."""
    console, left = terminal(), list(lines)

    def read() -> str:
        if not left:
            raise EOFError
        if left[0] == "^C":
            left.pop(0)
            raise KeyboardInterrupt
        return left.pop(0)

    Chat(*session, console).run(read)
    assert isinstance(console.file, io.StringIO)
    return _COMMANDS.sub("", console.file.getvalue())


def test_an_answer_with_its_thoughts_folded_and_shown_again(session: tuple[Session, ChatSettings]) -> None:
    shown = chatted(session, QUESTION, "/thoughts")
    assert "▸ 1 long: thought, 3 tokens  so" in shown
    assert f"{ANSWER}\n" in shown
    assert "2 turns · 8 tokens (long 3, short 5) · " in shown
    assert "▾ 1 long, 3 tokens\nso" in shown


def test_thoughts_can_stay_unfolded(session: tuple[Session, ChatSettings]) -> None:
    shown = chatted(session, "/thoughts keep", QUESTION)
    assert "▾ 1 long, 3 tokens\nso" in shown
    assert "▸" not in shown


def test_commands(session: tuple[Session, ChatSettings]) -> None:
    shown = chatted(
        session, "/help", "/thoughts", "^C", "/nonsense", "/effort tokens=5", "/effort turns=9", "/quit", "x"
    )
    for command in ("/help", "/thoughts", "/effort", "/clear", "/quit"):
        assert f"\n{command} " in shown
    for said in (
        "There was no thought.",
        "/quit or Ctrl-D ends the chat",
        "There is no command /nonsense",
        "effort: tokens=5",
        "/effort = turns=9: give a number from 2 (a turn each) to 4",
    ):
        assert said in shown, said


def test_what_an_answer_may_spend_is_kept_to(session: tuple[Session, ChatSettings]) -> None:
    shown = chatted(session, "/effort tokens=5", QUESTION)
    assert "The answer is not complete: no tokens are left." in shown


def test_a_conversation_is_remembered_until_it_is_forgotten(session: tuple[Session, ChatSettings]) -> None:
    opened, settings = session
    asked: list[Any] = []

    class Listening:
        def ask(self, messages: Any, *rest: Any) -> Answered | None:
            asked.append([message["content"] for message in messages])
            return opened.ask(messages, *rest)

    chatted((Listening(), settings), QUESTION, QUESTION, "/clear", QUESTION)  # type: ignore[arg-type]
    assert asked == [[QUESTION], [QUESTION, ANSWER, QUESTION], [QUESTION]]


def test_a_refused_question_is_one_line_and_the_chat_goes_on(session: tuple[Session, ChatSettings]) -> None:
    shown = chatted(session, "start <answer> 2 ?", QUESTION)
    assert "a message holds <answer>" in shown
    assert f"{ANSWER}\n" in shown


def test_ctrl_c_ends_the_answer_not_the_chat(pair: Path, endless: Path) -> None:
    limits = ["long_turn_tokens=200", "token_budget=220", "short_turn_tokens=20", "max_turns=4"]
    environment = [f"longshort.environment.{limit}" for limit in (*limits, "prompts={long:'',short:''}")]
    settings = settings_of(f"longshort.models.long={endless}", f"longshort.models.short={pair / 'short'}", *environment)
    seen: list[Event] = []

    def take(event: Event) -> None:
        seen.append(event)
        if isinstance(event, TextDelta):
            os.kill(os.getpid(), signal.SIGINT)

    message = {"role": "user", "content": QUESTION}
    with Session(settings) as session:
        assert session.ask([message], options_of("think", settings.limits), take) is None
        assert not any(isinstance(event, TurnEnded) for event in seen)
        answer = session.ask([message], options_of("think", settings.limits), lambda event: None)
        assert answer is not None
        assert answer.stop_reason is StopReason.TURN_CUT
        assert session.pair.running == 0


def test_a_question_on_standard_input_gives_the_answer_alone(
    pair: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n"))
    execute(ChatStage(), overrides=[f"longshort.pair={pair}"])
    assert capsys.readouterr().out == f"{ANSWER}\n"
    # a question of the command line counts before standard input, which is not read then
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(UnavailableError, match="the answer is not complete: no tokens are left"):
        execute(ChatStage(), overrides=[f"longshort.pair={pair}", "longshort.effort='tokens=5'", QUESTION])


def test_mistakes_are_one_line(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = f"longshort.pair={pair}"
    for arguments, message in (
        ([given, "two", "words"], "QUESTION = two words: is several words for the shell"),
        ([given, "longshort.effort=much"], r"longshort\.effort = much: must be think"),
        ([given, f"longshort.models.long={pair}/long"], r"longshort\.pair=.* says it already"),
        (["what?"], r"longshort\.models\.long = None"),
    ):
        with pytest.raises(UserError, match=message):
            settings_of(*arguments)
    assert settings_of(given, "is x=2 right?").question == "is x=2 right?"
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    with pytest.raises(UserError, match="standard input is empty"):
        execute(ChatStage(), overrides=[given])


def test_effort() -> None:
    options = options_of("answer turns=2 tokens=50", LIMITS)
    assert (options.think_first, options.max_turns, options.max_tokens) == (False, 2, 50)
    for effort in ("turns=1", "tokens=101", "turns=x", "more"):
        with pytest.raises(UserError, match=r"longshort\.effort"):
            options_of(effort, LIMITS)


def test_an_attempt_is_folded_and_a_model_cannot_command_the_terminal() -> None:
    console = terminal()
    evil = "\x1b[2Jgone\x07 \u202e é"
    turns = (
        TurnEnded(role=Role.LONG, number=1, text=evil, tokens=3, closing=Closing.THINK, fault=None),
        TurnEnded(role=Role.SHORT, number=2, text="try", tokens=2, closing=Closing.RETHINK, fault=None),
        TurnEnded(role=Role.LONG, number=3, text="more", tokens=4, closing=Closing.THINK, fault=None),
        TurnEnded(role=Role.SHORT, number=4, text=evil, tokens=5, closing=None, fault=None),
    )
    end = Answered(
        answer=evil,
        stop_reason=StopReason.TURN_CUT,
        fault_role=Role.SHORT,
        turns=turns,
        tokens={Role.LONG: 7, Role.SHORT: 7},
        prompt_tokens={Role.LONG: 1, Role.SHORT: 1},
        rethinks=1,
        seed=5,
        seconds=1.25,
    )
    with Screen(console) as screen:
        for turn in turns:
            screen.take(TurnStarted(role=turn.role, number=turn.number, last=turn.number == 4))
            screen.take(TextDelta(role=turn.role, text=turn.text))
            screen.take(turn)
        screen.take(end)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "▸ 2 short: asked for another thought, 2 tokens  try" in shown
    assert "The answer is not complete: a turn was too long." in shown
    assert "4 turns · 14 tokens (long 7, short 7) · 1.2 s · seed 5" in shown
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert printable(evil) == "[2Jgone  é"
