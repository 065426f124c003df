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
from verl_longshort.report.importance.chains import WeighedChain
from verl_longshort.report.page import asset, json_block
from verl_longshort.report.page import fragment as render_fragment

PACKAGE = "verl_longshort.report.importance"
_BLOCK = "reader-data"


def examples(chains: Sequence[WeighedChain], *, count: int, seed: int) -> list[WeighedChain]:
    """`count` chains drawn by `seed`, in their order; as many end wrong as right, as far as there are."""
    drawn = random.Random(seed).sample(range(len(chains)), len(chains))
    wrong = [index for index in drawn if not chains[index].right]
    right = [index for index in drawn if chains[index].right]
    by_turns = [index for index in joined(*zip_longest(right, wrong)) if index is not None]
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
        "id": chain.record["id"],
        "problem": chain.problem,
        "answer": str(chain.record["ground_truth"]),
        "right": chain.right,
        "tokens": int(chain.lengths[-1]),
        "start": round(float(chain.accuracies[0]), 3),
        "thoughts": [
            _thought(thought, keep, label)
            for thought, keep, label in zip(chain.thoughts, chain.keep, labels, strict=True)
        ],
    }


def _thought(thought: Record, keep: bool, label: str | None) -> Record:
    surprises = thought.get("surprises")
    return {
        "text": thought["text"].strip("\n"),
        "kind": thought["kind"],
        "label": label,
        "keep": keep,
        "surprise": round(statistics.median(surprises), 2) if surprises else None,
        **{name: thought[name] for name in ("right", "samples", "tokens")},
        **{name: round(thought[name], 3) for name in ("m", "p", "p_low", "p_high", "delta", "bound", "flip")},
    }
