"""The grader: a process of its own that compares answers with math-verify, one at a time.

Run as `python -m longshort_reward.grader_process`; requests and replies are JSON lines on stdin and stdout.

math-verify's own time limits raise from a signal handler. That works in a main thread only, and does not
interrupt one long operation in C such as the power of two large integers. Here the alarm keeps its default
action, so the kernel ends this process in time whatever it is doing, and the caller starts another. It also
ends when its stdin closes, so it never outlives the caller.
"""

import json
import logging
import os
import re
import resource
import signal
import sys
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify

from longshort_reward.plain import choice

_MEMORY_BYTES = 4 * 1024**3
_MATHS = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
_BRACKETED = re.compile(r"\(([A-J])\)")
_LETTERS = (StringExtractionConfig(strings=tuple("ABCDEFGHIJ"), lowercase=False),)


def compare(answer: str, gold: str, *, boxed: bool) -> bool:
    """Whether `answer` equals `gold`.

    Args:
        answer: the final answer itself (`boxed`), or a text in which math-verify has to find it.
        gold: the ground truth, LaTeX or plain.
    """
    letter = choice(gold)
    if letter and not boxed:
        # math-verify finds ` B` and `**B**` in a text, but not `(B)`.
        return letter in _parse(_BRACKETED.sub(r"\1", answer), _LETTERS)
    found = _parse(rf"\boxed{{{answer}}}" if boxed else answer, _MATHS)
    expected = _parse(rf"\boxed{{{gold}}}", _MATHS)
    return bool(verify(expected, found, allow_set_relation_comp=True, timeout_seconds=None))


def _parse(text: str, kinds: tuple[Any, ...]) -> list[Any]:
    found: list[Any] = parse(text, kinds, parsing_timeout=None)
    return found


def serve() -> None:
    """Answer requests until stdin closes."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as replies:
        # Whatever a library prints must not end up among the replies.
        os.dup2(2, 1)
        _prepare()
        print("ready", file=replies)
        for line in sys.stdin:
            request = json.loads(line)
            signal.setitimer(signal.ITIMER_REAL, request["timeout_s"])
            match = compare(request["answer"], request["gold"], boxed=request["boxed"])
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(json.dumps(match), file=replies)


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The mask is inherited, and a thread of the caller may have blocked every signal.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    # math-verify warns that its own time limit is off: ours is on.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    compare(r"\frac{x}{2}", "0.5x", boxed=True)


if __name__ == "__main__":
    serve()
