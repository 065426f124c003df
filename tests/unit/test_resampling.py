"""Counterfactual resampling of thoughts."""

import asyncio
from typing import Any

import pytest
from test_forced_answers import TAGS, chunked, prober

from verl_longshort.data.joinings import shipped
from verl_longshort.data.records import Weighed
from verl_longshort.data.resampling import Continuation, Resampler, ResampleSettings, compare

THOUGHT = "Add the numbers: 12 + 15 = 27."


def ways(text: str, *answers: str) -> list[Continuation]:
    return [Continuation(text=text, answer=answer, correct=answer == "27") for answer in answers]


def test_a_thought_that_decides_the_answer() -> None:
    found = compare(THOUGHT, ways("Perhaps it is", "26", "25", "27", "24"), ways("so", *["27"] * 4))
    assert (found["different"], found["samples"], found["gain"]) == (4, 4, 0.75)
    assert found["divergence"] > 0.5


def test_a_thought_that_changes_nothing() -> None:
    found = compare(THOUGHT, ways("We know that", "27", "27"), ways("so", "27", "27"))
    assert found == {"different": 2, "samples": 2, "divergence": 0.0, "gain": 0.0}


def test_a_thought_that_is_written_again_is_no_other() -> None:
    before = [*ways("add the numbers, 12 + 15 = 27. So that is all", "27"), *ways("Hmm, well", "3")]
    assert compare(THOUGHT, before, ways("so", "27"))["different"] == 1
    nothing = compare(THOUGHT, before[:1], ways("so", "27"))
    assert nothing == {"different": 0, "samples": 1, "divergence": None, "gain": None}


@pytest.mark.parametrize("joining", [TAGS, shipped()["chat"]])
def test_the_model_goes_on_from_an_open_chain(joining: Any) -> None:
    asked: list[str] = []

    def says(context: str, sampling: dict[str, Any]) -> str:
        asked.append(context)
        if "It is 27." in context:
            return "\n</think>\n<answer>\\boxed{27}</answer>" if joining is TAGS else "So \\boxed{27}."
        return "Is it 3? </think><answer>\\boxed{3}</answer>"

    settings = ResampleSettings(records=1, samples=2, max_tokens=60)
    resampler = Resampler(prober=prober(says, joining), settings=settings)
    first, second = asyncio.run(resampler.resample(0, chunked()))
    assert len(asked) == 6
    assert asked[2].endswith(f"{joining.open}We need the sum.\n\n")
    assert (first["different"], first["gain"]) == (2, 0.0)
    assert (second["different"], second["gain"]) == (2, 1.0)


def test_records_keep_it() -> None:
    counts = {"right": 1, "samples": 1, "p": 1.0, "p_low": 0.0, "p_high": 1.0, "m": 0.0, "delta": 0.0, "bound": 0.0}
    found = compare(THOUGHT, ways("so", "27"), ways("so", "27"))
    thoughts = [{"text": "t", "kind": "", "tokens": 1, **counts, "flip": 0.0, "resampled": found}]
    record = {"id": "a", "problem": "p", "ground_truth": "1", "chain": "t", "separator": "", "thoughts": thoughts}
    weighed = Weighed.model_validate({**record, "p_start": {"right": 0, "samples": 1}, "tokenizer": "t", "model": "m"})
    assert weighed.to_record()["thoughts"][0]["resampled"] == found
