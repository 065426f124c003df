"""Shows an answer while it is written: thoughts dimmed, and folded to a line when the next turn begins."""

from collections.abc import Callable, Sequence

from longshort_reward.protocol import Closing, Role
from rich.console import Console
from rich.live import Live
from rich.text import Text

from verl_longshort.core.environment import StopReason
from verl_longshort.serve.events import Answered, Event, TextDelta, TurnEnded, TurnStarted

LOOKS = {Role.LONG: "dim", Role.SHORT: ""}
UNFINISHED = {
    StopReason.MAX_TURNS: "no turns are left",
    StopReason.TOKEN_BUDGET: "no tokens are left",
    StopReason.TURN_CUT: "a turn was too long",
    StopReason.MALFORMED: "a model broke the protocol",
    StopReason.EMPTY_TURN: "a model said nothing",
    StopReason.ABORTED: "an engine gave up",
}
"""Why an answer is not complete, for a person."""


def printable(text: str) -> str:
    """Text without what a terminal would take for a command."""
    return "".join(character for character in text if character.isprintable() or character in "\n\t")


def is_thought(turn: TurnEnded, answer: Answered | None = None) -> bool:
    """Whether a turn is behind the answer: a thought, or an attempt after which the short role asked for another."""
    if turn.role is Role.LONG:
        return True
    return turn.closing is Closing.RETHINK and (answer is None or turn is not answer.turns[-1])


def folded(turn: TurnEnded) -> Text:
    """A turn as one line."""
    what = "thought" if turn.role is Role.LONG else "asked for another thought"
    words = " ".join(printable(turn.text).split())
    head = f"▸ {turn.number} {turn.role}: {what}, {turn.tokens} tokens  "
    return Text(head + words, style="dim", no_wrap=True, overflow="ellipsis")


def unfolded(turn: TurnEnded) -> Text:
    """A turn with all its text."""
    return Text(f"▾ {turn.number} {turn.role}, {turn.tokens} tokens\n{printable(turn.text).strip()}", style="dim")


def summary(answer: Answered) -> str:
    """What an answer took."""
    tokens = sum(answer.tokens.values())
    parts = ", ".join(f"{role} {count}" for role, count in answer.tokens.items())
    turns = len(answer.turns)
    shown = f"{turns} turn{'s' if turns != 1 else ''} · {tokens} tokens ({parts}) · {answer.seconds:.1f} s"
    return f"{shown} · seed {answer.seed}"


class Screen:
    """Shows one answer on a terminal. Use as a context manager; events go to `take`."""

    def __init__(self, console: Console, *, keep_thoughts: bool = False) -> None:
        self._console = console
        self._keep_thoughts = keep_thoughts
        self._role, self._text = Role.LONG, ""
        self._live = Live(console=console, transient=True, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> "Screen":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.update("", refresh=True)
        self._live.stop()

    def take(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, TurnStarted):
            self._role, self._text = event.role, ""
            self._show()
        elif isinstance(event, TextDelta):
            self._text += event.text
            self._show()
        elif isinstance(event, TurnEnded):
            self._text = ""
            self._live.update("", refresh=True)
            if is_thought(event):
                self._console.print(unfolded(event) if self._keep_thoughts else folded(event))
        else:
            self._end(event)

    def _show(self) -> None:
        """The end of the turn, as much of it as the terminal has lines."""
        words = printable(self._text).strip("\n") or "…"
        room = max(3, self._console.height - 4)
        lines = Text(words, style=LOOKS[self._role]).wrap(self._console, self._console.width)
        self._live.update(Text("\n").join(lines[-room:]), refresh=True)

    def _end(self, answer: Answered) -> None:
        self._live.update("", refresh=True)
        if answer.answer.strip():
            self._console.print(Text(printable(answer.answer).strip()))
        if answer.stop_reason is not StopReason.ANSWERED:
            self._console.print(Text(f"The answer is not complete: {UNFINISHED[answer.stop_reason]}.", style="yellow"))
        self._console.print(Text(summary(answer), style="dim"))


def show_thoughts(turns: Sequence[TurnEnded], show: Callable[[Text], None]) -> None:
    """All turns but the answer, in full."""
    thoughts = [turn for turn in turns if is_thought(turn)]
    for turn in thoughts:
        show(unfolded(turn))
    if not thoughts:
        show(Text("There was no thought.", style="dim"))
