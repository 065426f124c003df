"""How graders judge answers whose right value is known: this project's, math-verify, verl's prime_math and math_dapo.

Prints a Markdown table: of how many cases each grader gives the right value, how many wrong answers it accepts and
how many right ones it refuses. Every grader gets the same response, `\\boxed{...}` around the answer unless the case
is a whole response. With `--kinds` also this project's numbers by kind, with `--out` its verdicts as JSON lines.

    python benchmarks/grading.py
    python benchmarks/grading.py --cases my_cases.jsonl --kinds --only longshort
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CASES = Path(__file__).parent.parent / "tests" / "unit" / "grading_cases.jsonl"
Case = dict[str, Any]
Grade = Callable[[str, str], bool]


def longshort() -> Grade:
    from longshort_reward import match_answer

    return lambda text, gold: match_answer(text, gold, timeout_s=30)


def math_verify() -> Grade:
    from math_verify import parse, verify

    def grade(text: str, gold: str) -> bool:
        # Its README: the ground truth in a LaTeX environment.
        return bool(verify(parse(f"${gold}$"), parse(text)))

    return grade


def prime_math() -> Grade:
    from verl.utils.reward_score.prime_math import compute_score

    return lambda text, gold: bool(compute_score(text, gold)[0])


def math_dapo() -> Grade:
    from verl.utils.reward_score.math_dapo import compute_score

    return lambda text, gold: bool(compute_score(text, gold)["acc"])


GRADERS: dict[str, Callable[[], Grade]] = {
    "longshort": longshort,
    "math-verify": math_verify,
    "prime_math": prime_math,
    "math_dapo": math_dapo,
}


def main() -> None:
    options = _parser().parse_args()
    cases = [json.loads(line) for line in options.cases.read_text().splitlines()]
    print("| grader | cases | right | wrong answers accepted | right answers refused | ended in an error | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in options.only or GRADERS:
        started = time.monotonic()
        verdicts = _verdicts(GRADERS[name](), cases)
        print(f"| {name} | {_cells(cases, verdicts)} | {time.monotonic() - started:.0f} |", flush=True)
        if name == "longshort":
            ours = verdicts
    if options.kinds:
        _print_kinds(cases, ours)
    if options.out:
        lines = [json.dumps({**case, "verdict": verdict}) for case, verdict in zip(cases, ours, strict=True)]
        options.out.write_text("\n".join(lines) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=CASES, help="JSON lines: gold, boxed or text, expected, kind")
    parser.add_argument("--only", nargs="*", choices=GRADERS, help="graders to try; all by default")
    parser.add_argument("--kinds", action="store_true", help="this project's numbers by kind of case")
    parser.add_argument("--out", type=Path, help="this project's verdicts, as JSON lines")
    return parser


def _verdicts(grade: Grade, cases: Sequence[Case]) -> list[bool | None]:
    """One verdict per case; None where the grader raised an error."""
    verdicts: list[bool | None] = []
    for case in cases:
        text = case["text"] if "text" in case else rf"\boxed{{{case['boxed']}}}"
        try:
            verdicts.append(grade(text, case["gold"]))
        except Exception:
            verdicts.append(None)
    return verdicts


def _cells(cases: Sequence[Case], verdicts: Sequence[bool | None]) -> str:
    outcomes = Counter((case["expected"], verdict) for case, verdict in zip(cases, verdicts, strict=True))
    right = outcomes[True, True] + outcomes[False, False]
    errors = outcomes[True, None] + outcomes[False, None]
    return f"{len(cases)} | {right} | {outcomes[False, True]} | {outcomes[True, False]} | {errors}"


def _print_kinds(cases: Sequence[Case], verdicts: Sequence[bool | None]) -> None:
    print("\n| kind | cases | right | wrong answers accepted | right answers refused | ended in an error |")
    print("|---|---|---|---|---|---|")
    for kind in dict.fromkeys(case["kind"] for case in cases):
        chosen = [index for index, case in enumerate(cases) if case["kind"] == kind]
        print(f"| {kind} | {_cells([cases[i] for i in chosen], [verdicts[i] for i in chosen])} |")


if __name__ == "__main__":
    main()
