"""Chains to be read thought by thought on a page: which ones, what is shown of them, the HTML for it.

`fragment` goes into a section of any page that is rendered with `script()` among its scripts; one reader to a
page. The texts of the records reach the page as JSON and the document as text nodes only.
"""

import random
import statistics
from collections.abc import Sequence
from itertools import chain as joined
from itertools import zip_longest

from markupsafe import Markup

from verl_longshort.base.files import Record
from verl_longshort.data.importance import PENALTY
from verl_longshort.data.records import WeighedThought
from verl_longshort.report.importance.chains import WeighedChain
from verl_longshort.report.page import asset, json_block
from verl_longshort.report.page import fragment as render_fragment

PACKAGE = "verl_longshort.report.importance"
_BLOCK = "reader-data"


def examples(chains: Sequence[WeighedChain], *, count: int, seed: int) -> list[WeighedChain]:
    """`count` chains chosen by `seed`, in their order; half of them end in a correct answer, as far as there are."""
    shuffled = random.Random(seed).sample(range(len(chains)), len(chains))
    incorrect = [index for index in shuffled if not chains[index].correct]
    correct = [index for index in shuffled if chains[index].correct]
    by_turns = [index for index in joined(*zip_longest(correct, incorrect)) if index is not None]
    return [chains[index] for index in sorted(by_turns[:count])]


def fragment(chains: Sequence[WeighedChain], *, rule: str) -> Markup:
    """The reader of these chains, for the body of a section."""
    data = payload(chains)
    context = {
        "style": Markup(asset("reader.css", PACKAGE)),
        "data": json_block(_BLOCK, data),
        "rule": rule,
        "lowest": -PENALTY,
        "highest": data["highest"],
        "chains": len(chains),
    }
    return render_fragment("reader.html.jinja", context, package=PACKAGE)


def script() -> str:
    """The script that makes the fragment work."""
    return asset("reader.js", PACKAGE)


def payload(chains: Sequence[WeighedChain]) -> Record:
    """What the script reads: `lowest` and `highest` M of the colours, and the chains."""
    highest = max((float(chain.m.max()) for chain in chains), default=PENALTY)
    return {
        "lowest": -PENALTY,
        "highest": round(max(highest, PENALTY), 2),
        "chains": [_chain(chain) for chain in chains],
    }


def _chain(chain: WeighedChain) -> Record:
    labels = chain.labels or (None,) * len(chain.keep)
    return {
        "id": chain.record.id,
        "problem": chain.problem,
        "answer": str(chain.record.ground_truth),
        "right": chain.correct,
        "tokens": int(chain.lengths[-1]),
        "start": round(float(chain.accuracies[0]), 3),
        "thoughts": [
            _thought(thought, keep, label)
            for thought, keep, label in zip(chain.thoughts, chain.keep, labels, strict=True)
        ],
    }


def _thought(thought: WeighedThought, keep: bool, label: str | None) -> Record:
    return {
        "text": thought.text.strip("\n"),
        "kind": thought.kind,
        "label": label,
        "keep": keep,
        "surprise": round(statistics.median(thought.surprisals), 2) if thought.surprisals else None,
        "right": thought.correct,
        "samples": thought.samples,
        "tokens": thought.tokens,
        **{name: round(getattr(thought, name), 3) for name in ("m", "p", "p_low", "p_high", "delta", "bound", "flip")},
    }
