"""Weighed records as `longshort weigh` writes them, made without a model."""

import random
from collections.abc import Sequence
from typing import Any

from verl_longshort.data.importance import PassCount, thought_importances

HOSTILE = "<script>alert('x')</script> </script><!-- <img src=x onerror=alert(1)> & \"q\" \u2028 $\\frac{1}{2"
OPENINGS = ("Okay, so", "Wait, let me check that", "Alternatively,", "Next,", "Hmm,", "Therefore,")
KINDS = ("plan", "check", "alternative", "step", "check", "conclude")
BODY = (
    "the sum over the remaining terms is bounded by the first one, since every later term is at most half of "
    "the one before it. Writing it out gives $\\sum_{k \\ge 1} 2^{-k} = 1$, and for n = 7 this is below 0.01"
)


def weighed(
    tokens: Sequence[int],
    right: Sequence[int],
    samples: int = 5,
    *,
    name: str = "one",
    problem: str = "what is it ?",
    texts: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A record; `right` begins with the empty prefix."""
    texts = texts or [f"thought {index} ." for index in range(len(tokens))]
    kinds = kinds or ["step"] * len(tokens)
    counts = [PassCount(correct=number, samples=samples) for number in right]
    thoughts = [
        {
            "text": text,
            "kind": kind,
            "tokens": length,
            "right": count.correct,
            "samples": samples,
            "surprises": [0.5] * samples,
            "p": count.rate,
            "p_low": weight.low,
            "p_high": weight.high,
            **{each: getattr(weight, each) for each in ("m", "delta", "bound", "flip", "delta_flip")},
        }
        for text, kind, length, count, weight in zip(
            texts, kinds, tokens, counts[1:], thought_importances(tokens, counts), strict=True
        )
    ]
    return {
        "id": name,
        "problem": problem,
        "ground_truth": "4",
        "chain": " ".join(texts),
        "separator": " ",
        "thoughts": thoughts,
        "p_start": {"right": right[0], "samples": samples, "surprises": [1.0] * samples},
        "tokenizer": "tokenizer",
        "model": "base",
        **more,
    }


def prose(name: str, thoughts: int, *, seed: int = 0) -> dict[str, Any]:
    """A long chain in English, with what a page must not take for markup; accuracy climbs along it."""
    rng = random.Random(f"{seed}/{name}")
    openings = [rng.randrange(len(OPENINGS)) for _ in range(thoughts)]
    texts = [f"{OPENINGS[which]} {'. '.join([BODY] * rng.randint(1, 4))}." for which in openings]
    texts[rng.randrange(thoughts)] += f"\n\n{HOSTILE}"
    steps = sorted(rng.random() for _ in range(thoughts))
    reach = rng.random()
    right = [1, *(sum(rng.random() < min(reach + 0.2, step) for _ in range(8)) for step in steps)]
    return weighed(
        [len(text.split()) for text in texts],
        right,
        8,
        name=name,
        problem=f"Problem {name}: how many of the first {thoughts} integers are coprime to 30? {HOSTILE}",
        texts=texts,
        kinds=[KINDS[which] for which in openings],
    )
