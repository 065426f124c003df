"""A chat: reads questions and commands, and lets the pair answer. Ctrl-C ends the answer, not the chat."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import replace
from typing import Any

from longshort_reward.errors import UserError
from rich.console import Console
from rich.text import Text

from verl_longshort.chat.effort import HELP, options_of
from verl_longshort.chat.screen import Screen, show_thoughts
from verl_longshort.chat.settings import ChatSettings
from verl_longshort.core.role_view import Message
from verl_longshort.serve.errors import ServeError
from verl_longshort.serve.events import Answered, Event
from verl_longshort.serve.pair import AnswerOptions, PairService, open_pair

PROMPT = "you> "
COMMANDS = {
    "/help": "this list",
    "/thoughts": "the thoughts behind the last answer; /thoughts keep leaves them unfolded, /thoughts fold folds them",
    "/effort": f"what an answer may spend: {HELP}",
    "/clear": "forget the conversation",
    "/quit": "end the chat (also Ctrl-D)",
}
Take = Callable[[Event], None]


class Session:
    """The pair with an event loop of its own, which runs while it answers."""

    def __init__(self, settings: ChatSettings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._opened = AsyncExitStack()
        self.pair: PairService

    def __enter__(self) -> "Session":
        self.pair = self._loop.run_until_complete(self._opened.enter_async_context(open_pair(self._settings)))
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._opened.aclose())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def ask(self, messages: Sequence[Message], options: AnswerOptions, take: Take) -> Answered | None:
        """The answer, or None if Ctrl-C ended it. Raises ServeError."""
        task = self._loop.create_task(self._ask(messages, options, take))
        with self._ctrl_c_cancels(task):
            try:
                return self._loop.run_until_complete(task)
            except asyncio.CancelledError:
                return None

    async def _ask(self, messages: Sequence[Message], options: AnswerOptions, take: Take) -> Answered:
        last: Event | None = None
        async with aclosing(self.pair.answer(messages, options)) as events:
            async for event in events:
                take(event)
                last = event
        assert isinstance(last, Answered), "an answer ends with it"
        return last

    @contextmanager
    def _ctrl_c_cancels(self, task: "asyncio.Task[Any]") -> Iterator[None]:
        self._loop.add_signal_handler(signal.SIGINT, task.cancel)
        try:
            yield
        finally:
            self._loop.remove_signal_handler(signal.SIGINT)


class Chat:
    """A conversation on a terminal."""

    def __init__(self, session: Session, settings: ChatSettings, console: Console) -> None:
        self._session = session
        self._settings = settings
        self._console = console
        self._messages: list[Message] = []
        self._last: Answered | None = None
        self._options = options_of(settings.effort, settings.limits)
        self._effort = settings.effort
        self._keep_thoughts = False
        self._seed = settings.seed

    def run(self, read: Callable[[], str]) -> None:
        """Read lines until `/quit` or the end of the input."""
        self._say(f"{self._settings.name}: /help lists the commands", style="dim")
        while True:
            try:
                line = read().strip()
            except KeyboardInterrupt:
                self._say("\n/quit or Ctrl-D ends the chat", style="dim")
                continue
            except EOFError:
                self._say("")
                return
            if line == "/quit":
                return
            if line.startswith("/"):
                self.command(line)
            elif line:
                self.ask(line)

    def ask(self, question: str) -> Answered | None:
        """Put a question; what was answered stays in the conversation, what failed or was ended does not."""
        messages = [*self._messages, {"role": "user", "content": question}]
        options = replace(self._options, seed=self._seed)
        with Screen(self._console, keep_thoughts=self._keep_thoughts) as screen:
            try:
                answer = self._session.ask(messages, options, screen.take)
            except ServeError as error:
                answer, said = None, str(error)
            else:
                said = "Ended." if answer is None else ""
        if answer is None:
            self._say(said, style="red")
            return None
        # the next answer is sampled anew, and reproducibly
        self._seed = None if self._seed is None else self._seed + 1
        self._last = answer
        if answer.answer.strip():
            self._messages = [*messages, {"role": "assistant", "content": answer.answer}]
        return answer

    def command(self, line: str) -> None:
        """A command, such as `/effort answer`."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name == "/help":
            for command, about in COMMANDS.items():
                self._say(f"{command:10} {about}")
        elif name == "/clear":
            self._messages, self._last = [], None
            self._say("The conversation is forgotten.", style="dim")
        elif name == "/effort":
            self._set_effort(rest)
        elif name == "/thoughts" and rest in ("keep", "fold"):
            self._keep_thoughts = rest == "keep"
        elif name == "/thoughts" and not rest:
            turns = () if self._last is None else self._last.turns
            show_thoughts(turns, self._console.print)
        else:
            self._say(f"There is no command {line}; /help lists them.", style="red")

    def _set_effort(self, effort: str) -> None:
        if effort:
            try:
                self._options = options_of(effort, self._settings.limits, key="/effort")
            except UserError as error:
                self._say(str(error), style="red")
                return
            self._effort = effort
        self._say(f"effort: {self._effort}", style="dim")

    def _say(self, line: str, *, style: str = "") -> None:
        self._console.print(Text(line, style=style), soft_wrap=True)
