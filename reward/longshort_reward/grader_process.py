"""The grader: a process of its own that compares answers with math-verify, one at a time.

Run as `python -m longshort_reward.grader_process`; requests and replies are JSON lines on stdin and stdout.

math-verify's own time limits raise from a signal handler. That works in a main thread only, and does not
interrupt one long operation in C such as the power of two large integers. Here the alarm keeps its default
action, so the kernel ends this process in time whatever it is doing, and the caller starts another. The
alarm counts processor time; a process that gets none is given up by the caller. It also ends when its stdin closes,
so it never outlives the caller.
"""

import json
import logging
import os
import re
import resource
import signal
import sys
from dataclasses import replace
from functools import lru_cache
from typing import Any

import sympy
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from longshort_reward.reading.equality import equal
from longshort_reward.reading.exactness import differ, identical

_MEMORY_BYTES = 4 * 1024**3
_IN_PROSE = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
# Units are read before (`reading.amounts`); here `m` is a variable.
_PLAIN = replace(_IN_PROSE[0].normalization_config, units=False)
_ALONE = (LatexExtractionConfig(boxed_match_priority=0, normalization_config=_PLAIN), ExprExtractionConfig())
_OBJECTS = (sympy.Basic, sympy.MatrixBase)
_DECIMAL = re.compile(r"\d*\.(\d+)")


def compare(answer: str, gold: str, *, boxed: bool) -> bool:
    """Whether `answer` equals `gold`.

    Args:
        answer: the final answer itself (`boxed`), or a text in which math-verify has to find it.
        gold: the ground truth, LaTeX or plain.
    """
    if boxed:
        return bool(equal(answer, gold, _algebra))
    return _same(_expected(gold, _IN_PROSE), _parse(answer, _IN_PROSE), answer, gold)


def _algebra(answer: str, gold: str) -> bool:
    return _same(_expected(gold, _ALONE), _parse(rf"\boxed{{{answer}}}", _ALONE), answer, gold)


@lru_cache(maxsize=256)
def _expected(gold: str, kinds: tuple[Any, ...]) -> list[Any]:
    """A ground truth, which the answers of a whole group are compared with."""
    return _parse(rf"\boxed{{{gold}}}", kinds)


def _same(expected: list[Any], found: list[Any], answer: str, gold: str) -> bool:
    ours, theirs = (next((x for x in side if isinstance(x, _OBJECTS)), None) for side in (found, expected))
    places = [len(decimals) for text in (answer, gold) for decimals in _DECIMAL.findall(text)]
    if not verify(expected, found, allow_set_relation_comp=True, timeout_seconds=None):
        return not places and identical(ours, theirs)
    return ours is None or theirs is None or not differ(ours, theirs, places=places)


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
            print(_reply(json.loads(line)), file=replies)


def _reply(request: dict[str, Any]) -> str:
    signal.setitimer(signal.ITIMER_PROF, request["timeout_s"])
    match = compare(request["answer"], request["gold"], boxed=request["boxed"])
    signal.setitimer(signal.ITIMER_PROF, 0)
    return json.dumps(match)


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The mask is inherited, and a thread of the caller may have blocked every signal.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    # math-verify warns that its own time limit is off: ours is on.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    compare(r"\frac{x}{2}", "0.5x", boxed=True)


if __name__ == "__main__":
    serve()
