"""Answers against their ground truths: `grading_cases.jsonl`, made after public reports, and relatives of them.

A case has `gold`, `boxed` (what stands in the box) or `text` (the whole response), `expected`, its `kind`, and a
`reason` where the value is arguable. `benchmarks/grading.py` runs the same cases through other graders.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from longshort_reward import match_answer

FILES = ("grading_cases.jsonl", "grading_relatives.jsonl")
LINES = [line for file in FILES for line in (Path(__file__).parent / file).read_text().splitlines()]
KINDS: dict[str, list[dict[str, Any]]] = defaultdict(list)
for line in LINES:
    KINDS[json.loads(line)["kind"]].append(json.loads(line))


def verdict(case: dict[str, Any]) -> bool:
    text = case["text"] if "text" in case else rf"\boxed{{{case['boxed']}}}"
    # A slow machine must not decide.
    return match_answer(text, case["gold"], timeout_s=60)


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_of_a_kind_is_graded_right(kind: str) -> None:
    wrong = [case for case in KINDS[kind] if verdict(case) is not case["expected"]]
    assert not wrong, "\n".join(json.dumps(case) for case in wrong)


def test_the_cases_are_many() -> None:
    assert len(LINES) >= 862
    assert sum(not case["expected"] for cases in KINDS.values() for case in cases) >= 300
