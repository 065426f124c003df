"""Speed of grading where it takes algebra: `match_answer`, which asks a grader process, against bare math-verify.

The answers are the cases of the test suite that `match_answer` cannot decide without algebra, each once, in one order.
Bare math-verify parses the ground truth and the answer and compares them, in its own process and without any limit of
time; `match_answer` finds the answer, reads both, and asks its grader, which has the limits. Each has a fresh process
in each round, since sympy remembers what it has computed; starting it does not count.

Seconds are of processor time, those of the grader process included, and of the clock; ratios are of answers per second
within a round, the median of the rounds.

    python benchmarks/grading_speed.py --out grading_speed.json
    python benchmarks/grading_speed.py --cases 10 --rounds 1        # smoke
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from common import machine
from longshort_reward import match_answer, plain
from longshort_reward.ground_truth import LONGEST, ground_truth_text
from rich.console import Console
from rich.table import Table

CASES = Path(__file__).parent.parent / "tests" / "unit" / "grading_cases.jsonl"
CONTENDERS = ("bare math-verify", "match_answer")
TIMEOUT_S = 1800


def undecided(count: int | None) -> list[tuple[str, str]]:
    """Answers with their ground truths."""
    found: dict[tuple[str, str], None] = {}
    for case in map(json.loads, CASES.read_text(encoding="utf-8").splitlines()):
        answer = case.get("boxed", "")
        try:
            gold = ground_truth_text(case["gold"])
        except (TypeError, ValueError):
            continue
        if not answer.strip() or len(answer) > LONGEST or plain.is_runaway(answer):
            continue
        if plain.decide(answer, gold) is None:
            found[answer, gold] = None
    pairs = list(found)
    random.Random(0).shuffle(pairs)
    return pairs[:count]


def bare() -> Callable[[str, str], bool]:
    import logging

    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)

    def grade(answer: str, gold: str) -> bool:
        found = parse(rf"\boxed{{{answer}}}", parsing_timeout=None)
        return bool(verify(parse(rf"\boxed{{{gold}}}", parsing_timeout=None), found, timeout_seconds=None))

    return grade


def ours() -> Callable[[str, str], bool]:
    return lambda answer, gold: match_answer(rf"\boxed{{{answer}}}", gold, timeout_s=60)


def used() -> float:
    """Processor seconds of this process and its graders so far."""
    processes = [psutil.Process(), *psutil.Process().children()]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def graded(name: str, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    grade = bare() if name == CONTENDERS[0] else ours()
    grade("x+x", "2x")
    begun, cpu = time.monotonic(), used()
    matches = sum(grade(answer, gold) for answer, gold in pairs)
    seconds, cpu = time.monotonic() - begun, used() - cpu
    return {"answers": len(pairs), "matches": matches, "seconds": seconds, "cpu_s": cpu}


def in_process(name: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--as", name]
    command += ["--cases", str(options.cases)] if options.cases else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, help="how many of them; all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    parser.add_argument("--as", dest="contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(graded(options.contender, undecided(options.cases))))
        return
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        order = CONTENDERS if number % 2 == 0 else CONTENDERS[::-1]
        rounds.append({name: in_process(name, options) for name in order})
    ratio = {
        key: statistics.median(one[CONTENDERS[0]][key] / one[CONTENDERS[1]][key] for one in rounds)
        for key in ("seconds", "cpu_s")
    }
    result: dict[str, Any] = {"machine": machine(), "ratio": ratio, "rounds": rounds}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    count = int(rounds[0][CONTENDERS[0]]["answers"])
    table = Table("", "ms of processor time", "ms on the clock", title=f"an answer, of {count}")
    for name in CONTENDERS:
        each = [statistics.median(1000 * one[name][key] / count for one in rounds) for key in ("cpu_s", "seconds")]
        table.add_row(name, *(f"{value:.1f}" for value in each))
    table.add_row("answers/s of match_answer / bare", f"{ratio['cpu_s']:.2f}", f"{ratio['seconds']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
