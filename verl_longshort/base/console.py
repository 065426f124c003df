"""What a person reads of a stage whose processes print more than anybody wants to read.

Such a stage names a log (`Stage.log`). While it works, `captured` sends there whatever this process, its children and
Ray print; the console shows only what was said with `say`, from any process of the stage and on any node that sees the
log's folder: `LONGSHORT_CONSOLE` names the file that `say` appends to. Warnings of this package are said, too, each one
once.

    {folder}/{stage}.0.log    everything; one per start, so that a resumed run erases nothing
    {folder}/{stage}.0.txt    the console
"""

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.errors import RunDiedError, RunStoppedError, UnavailableError

VARIABLE = "LONGSHORT_CONSOLE"
PACKAGE = "verl_longshort"
_FOR_PEOPLE = (UserError, RunDiedError, RunStoppedError, UnavailableError)


@dataclass(frozen=True, kw_only=True)
class Captured:
    """`console` writes where stdout went before; `said` is the file of `say`."""

    console: Console
    said: Path
    log: Path


class SaidLines:
    """Reads the whole lines that were appended to a file since the last look."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._place = 0

    def new(self) -> list[str]:
        """Lines without their ends."""
        with self._file.open("rb") as file:
            file.seek(self._place)
            text = file.read()
        *whole, rest = text.split(b"\n")
        self._place += len(text) - len(rest)
        return [line.decode("utf-8", errors="replace") for line in whole]


class _Saying(logging.Handler):
    """Says the warnings of a process, each one once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._said:
            self._said.add(text)
            say(f"{record.levelname.lower()}: {text}")


class Once(logging.Filter):
    """Lets each message of a logger through once per process."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is new."""
        text = record.getMessage()
        new = text not in self._seen
        self._seen.add(text)
        return new


def say(text: str, *, stream: TextIO | None = None) -> None:
    """Show one or more lines on the stage's console, from any of its processes; without one, on `stream` or stdout."""
    path = os.environ.get(VARIABLE)
    if not path:
        print(text, file=stream or sys.stdout, flush=True)
        return
    # one write to a file opened for appending: lines of several processes do not mix
    with open(path, "ab", buffering=0) as file:
        file.write(f"{text}\n".encode())


def say_warnings() -> None:
    """From here on, say the package's warnings of this process where its console is elsewhere."""
    logger = logging.getLogger(PACKAGE)
    if os.environ.get(VARIABLE) and not any(isinstance(handler, _Saying) for handler in logger.handlers):
        logger.addHandler(_Saying())


def next_log(folder: Path, name: str) -> Path:
    """The log of the next start of the stage `name`."""
    return folder / f"{name}.{len(list(folder.glob(f'{name}.*.log')))}.log"


@contextmanager
def captured(log: Path) -> Iterator[Captured]:
    """Send what this process and its children print to `log`, and name it on the console.

    Both Python's streams and those of C libraries are redirected until the body ends. An exception leaves its traceback
    in the log, and the console names the log again.

    Raises:
        UserError: the log cannot be written.
        RunDiedError: in place of an exception that is not meant for people, with its last line.
    """
    said = log.with_suffix(".txt")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        said.write_text("")
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise UserError("log", log, f"cannot be written ({error.strerror}): choose another folder") from error
    streams = (sys.stdout, sys.stderr)
    before = [os.dup(number) for number in (1, 2)]
    with os.fdopen(os.dup(before[0]), "w", encoding="utf-8", errors="replace", buffering=1) as screen:
        console = Console(file=screen)
        console.print(f"Log: {log}", markup=False, highlight=False, soft_wrap=True)
        for stream in streams:
            stream.flush()
        for number in (1, 2):
            os.dup2(sink, number)
        os.environ[VARIABLE] = str(said)
        say_warnings()
        try:
            yield Captured(console=console, said=said, log=log)
        except BaseException as error:
            traceback.print_exc()
            console.print(f"All that was printed: {log}", markup=False, highlight=False, soft_wrap=True)
            if not isinstance(error, Exception) or isinstance(error, _FOR_PEOPLE):
                raise
            raise RunDiedError(traceback.format_exception_only(error)[-1].strip().splitlines()[-1]) from error
        finally:
            del os.environ[VARIABLE]
            for stream in streams:
                stream.flush()
            for number, old in zip((1, 2), before, strict=True):
                os.dup2(old, number)
                os.close(old)
            os.close(sink)
