"""`longshort chat`; settings: `config/chat.yaml`; guide: `docs/chat.md`."""

import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import click
from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.errors import UnavailableError
from verl_longshort.base.pair_file import with_pair
from verl_longshort.base.policy_record import prompt_warnings
from verl_longshort.base.requirements import Requirements
from verl_longshort.base.stage import ConfigStage
from verl_longshort.chat.settings import ChatSettings

_OVERRIDE = re.compile(r"\+{0,2}longshort\.[\w.]+=")


class ChatStage(ConfigStage[ChatSettings, None]):
    """Talk to a pair in the terminal, or ask it one QUESTION (config/chat.yaml)."""

    name = "chat"
    config = "chat"
    Settings = ChatSettings
    talks = True
    parameters = (click.Argument(["overrides"], nargs=-1, metavar="[KEY=VALUE]... [QUESTION]"),)

    def settings(self, **arguments: Any) -> ChatSettings:
        """Keys and the question. Raises UserError."""
        given: Sequence[str] = arguments["overrides"]
        words = [argument for argument in given if not _OVERRIDE.match(argument)]
        if len(words) > 1:
            raise UserError("QUESTION", " ".join(words), "is several words for the shell: put quotes around it")
        block = self.block([argument for argument in given if _OVERRIDE.match(argument)])
        return ChatSettings.parse({**block, "question": words[0] if words else None})

    def block(self, overrides: Sequence[str]) -> dict[str, Any]:
        """With what a `pair.json` says. Raises UserError."""
        return with_pair(super().block(overrides), overrides)

    def requirements(self, settings: ChatSettings, inputs: None) -> Requirements:
        """A person, whom no plan has."""
        return Requirements(command=self.name)

    def run(self, settings: ChatSettings, inputs: None, console: Console) -> None:
        """Chat, or answer the one question."""
        from verl_longshort.chat.session import PROMPT, Chat, Session

        piped = settings.question is None and not sys.stdin.isatty()
        question = sys.stdin.read().strip() if piped else settings.question
        if piped and not question:
            raise UserError("QUESTION", None, "standard input is empty: give the question there or as an argument")
        shown = console.is_terminal and not piped
        if settings.runs_here:
            for line in prompt_warnings(settings.model_paths, settings.prompts):
                click.echo(f"warning: {line}", err=True)
        with ExitStack() as opened:
            with console.status("loading the pair") if shown else nullcontext():
                session = opened.enter_context(Session(settings))
            if question is not None and not shown:
                _answer_alone(session, settings, question)
                return
            chat = Chat(session, settings, console)
            if question is not None:
                chat.ask(question)
                return
            # line editing and history
            import readline  # noqa: F401

            chat.run(lambda: input(PROMPT))


def _answer_alone(session: Any, settings: ChatSettings, question: str) -> None:
    """The answer on standard output and nothing else. Raises UserError or UnavailableError where there is none."""
    from dataclasses import replace

    from verl_longshort.chat.effort import options_of
    from verl_longshort.chat.screen import UNFINISHED, printable
    from verl_longshort.core.environment import StopReason
    from verl_longshort.serve.errors import RequestError, ServeError

    options = replace(options_of(settings.effort, settings.limits), seed=settings.seed, stream=False)
    try:
        answer = session.ask([{"role": "user", "content": question}], options, lambda event: None)
    except RequestError as error:
        raise UserError("QUESTION", question[:40], str(error)) from error
    except ServeError as error:
        raise UnavailableError(str(error)) from error
    if answer is None:
        raise UnavailableError("the answer was ended by Ctrl-C")
    if answer.answer.strip():
        click.echo(printable(answer.answer).strip())
    if answer.stop_reason is not StopReason.ANSWERED:
        raise UnavailableError(f"the answer is not complete: {UNFINISHED[answer.stop_reason]}")
