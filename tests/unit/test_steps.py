"""Cutting a chain: nothing is lost, by rules or by what a model replies, however hostile."""

import json
import re
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from verl_longshort.config.compose import CONFIG_DIR
from verl_longshort.data.chunkers import START, RuleChunker, chunk_messages, read_blocks
from verl_longshort.data.steps import Block, Steps, join_blocks, split_steps
from verl_longshort.llm.task_client import BadReplyError

TEXT = OmegaConf.load(CONFIG_DIR / "chains" / "text.yaml")
BLANK_LINES = re.compile(TEXT.splitter)

PARAGRAPHS = st.lists(
    st.sampled_from(["Wait, no.", "so 2 < 3", "Okay", "a\nb", "\n\n", "\n \n", "\n\n\n", " ", "\t", "é", ""]),
    min_size=1,
    max_size=12,
).map("".join)


def restored(steps: Steps) -> str:
    return steps.separator.join(steps.texts)


@given(st.one_of(PARAGRAPHS, st.text()), st.sampled_from([TEXT.splitter, r"(?<= \.)\s+", r"\s", r"(?=a)", "x*"]))
@example("\n\na\n\nb\n\n", TEXT.splitter)
def test_steps_give_the_chain_back(chain: str, splitter: str) -> None:
    steps = split_steps(chain, re.compile(splitter))
    assert restored(steps) == chain
    assert all(text.strip() for text in steps.texts) or not chain.strip()


@given(st.one_of(PARAGRAPHS, st.text()))
def test_thoughts_by_rules_give_the_chain_back(chain: str) -> None:
    steps = split_steps(chain, BLANK_LINES)
    thoughts = join_blocks(steps, RuleChunker(TEXT.markers).blocks(steps))
    assert steps.separator.join(thought["text"] for thought in thoughts) == chain
    assert all(thought["kind"] for thought in thoughts)


def test_one_separator_or_the_texts_own() -> None:
    assert split_steps("a\n\nb\n\nc", BLANK_LINES) == Steps(texts=("a", "b", "c"), separator="\n\n")
    assert split_steps("a\n\nb\n\n\nc", BLANK_LINES) == Steps(texts=("a\n\n", "b\n\n\n", "c"), separator="")
    assert split_steps("a\nb", BLANK_LINES) == Steps(texts=("a\nb",), separator="")


def test_markers_open_thoughts() -> None:
    chain = "Let n be 3.\n\nSome more.\n\nWait, is it?\n\nLet me check: 1.\n\nAlternatively, 2.\n\nHence 3."
    steps = split_steps(chain, BLANK_LINES)
    blocks = RuleChunker(TEXT.markers).blocks(steps)
    assert [(block.first, block.last, block.kind) for block in blocks] == [
        (0, 1, START),
        (2, 2, "check"),
        (3, 3, "check"),
        (4, 4, "alternative"),
        (5, 5, "conclude"),
    ]


def test_markers_are_whole_words_and_the_longest_decides() -> None:
    chunker = RuleChunker({"conclude": ["so"], "check": ["so wait"]})
    steps = Steps(texts=("a", "some", "So,", "so wait", "sow"), separator="\n\n")
    assert [block.kind for block in chunker.blocks(steps)] == [START, "conclude", "check"]
    assert len(RuleChunker({}).blocks(steps)) == 1


def test_blocks_that_do_not_cover_the_steps_are_refused() -> None:
    steps = Steps(texts=("a", "b"), separator=" ")
    with pytest.raises(ValueError, match="not 0 to 1 in order"):
        join_blocks(steps, [Block(first=0, last=0, kind="x")])


@st.composite
def partitions(draw: st.DrawFn) -> list[Block]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return [Block(first=start, last=start + size - 1, kind="step") for start, size in zip(starts, sizes, strict=True)]


def items(blocks: list[Block], base: int = 1) -> list[dict[str, Any]]:
    return [{"start": b.first + base, "end": b.last + base, "kind": b.kind} for b in blocks]


DRESSES = {
    "plain": "{}",
    "fence": "Here you are:\n```json\n{}\n```\nI hope [this] helps.",
    "prose": "Steps [1] and {{2}} are one. {} That is all.",
    "wrapped": '{{"thoughts": {}}}',
    "thinking": "<think>[{{'start': 1}}, hmm</think>{}",
}


@given(partitions(), st.sampled_from([0, 1]), st.sampled_from(sorted(DRESSES)))
def test_a_good_reply_is_read_in_any_dress(blocks: list[Block], base: int, dress: str) -> None:
    reply = DRESSES[dress].format(json.dumps(items(blocks, base)))
    assert read_blocks(reply, blocks[-1].last + 1) == blocks


REPAIRS = (
    lambda text: text.replace('"', "'"),
    lambda text: text[:-1] + ",]",
    lambda text: text[:-1],
    lambda text: text.replace('"start"', "start"),
    lambda text: text.replace("}, {", "} {"),
    lambda text: re.sub(r"(\d+)", r'"\1"', text),
)


@given(partitions(), st.sampled_from(REPAIRS))
def test_a_nearly_good_reply_is_repaired(blocks: list[Block], repair: Any) -> None:
    reply = repair(json.dumps(items(blocks)))
    assert read_blocks(reply, blocks[-1].last + 1) == blocks


NUMBERS = st.one_of(
    st.integers(-3, 30),
    st.sampled_from([10**30, -(10**30), 1.5, True, None, "x", "", "1e9", "9" * 5000, [], float("inf")]),
)


@given(partitions(), st.data())
def test_a_hostile_reply_is_refused(blocks: list[Block], data: st.DataObject) -> None:
    good = items(blocks)
    bad = [dict(item) for item in good]
    place = data.draw(st.integers(0, len(bad) - 1))
    change = data.draw(st.sampled_from(["drop", "double", "start", "end", "kind", "extra"]))
    if change == "drop":
        del bad[place]
    elif change == "double":
        bad.insert(place, dict(bad[place]))
    elif change == "extra":
        bad.append({"start": 99, "end": 99, "kind": "x"})
    elif change == "kind":
        bad[place]["kind"] = data.draw(st.sampled_from([None, "", " ", 3]))
    else:
        bad[place][change] = data.draw(NUMBERS)
    assume(bad != good or [type(v) for i in bad for v in i.values()] != [type(v) for i in good for v in i.values()])
    with pytest.raises(BadReplyError):
        read_blocks(json.dumps(bad), blocks[-1].last + 1)


@given(st.text(alphabet='[]{}":,0123 startendki\\\n', max_size=80), st.integers(1, 5))
@example("[" * 5000, 3)
@example('[{"start": 1, "end": 2, "kind": "a"}, {"start": 3, "en', 4)
@example('{"start": 1, "end": 1, "kind": "a"}', 2)
def test_whatever_is_said_covers_all_steps_or_is_refused(reply: str, count: int) -> None:
    try:
        blocks = read_blocks(reply, count)
    except BadReplyError:
        return
    assert [k for b in blocks for k in range(b.first, b.last + 1)] == list(range(count))


REASONS = {
    "[]": "no JSON list",
    "I cannot do that.": "no JSON list",
    '[{"start": 2, "end": 4, "kind": "a"}]': "the first thought starts at 2, not at 1",
    '[{"start": 1, "end": 3, "kind": "a"}]': "the last thought ends at 3, not at 4",
    '[{"start": 1, "end": 5, "kind": "a"}]': "the last thought ends at 5, not at 4",
    '[{"start": 1, "end": 2, "kind": "a"}, {"start": 4, "end": 4, "kind": "a"}]': "at 4 where 3 is next",
    '[{"start": 1, "end": 0, "kind": "a"}]': "goes from 1 back to 0",
    '[{"start": 1, "end": 4}]': 'every object needs a "kind"',
    '[{"start": "one", "end": 4, "kind": "a"}]': "must be step numbers, not 'one'",
}


@pytest.mark.parametrize(("reply", "reason"), REASONS.items(), ids=range(len(REASONS)))
def test_the_reason_is_told(reply: str, reason: str) -> None:
    with pytest.raises(BadReplyError, match=re.escape(reason)):
        read_blocks(reply, 4)


def test_the_model_sees_the_problem_and_the_numbered_steps() -> None:
    steps = Steps(texts=("one {", "two"), separator="\n\n")
    (message,) = chunk_messages("What is {x}?", steps)
    assert message["content"].endswith("PROBLEM\nWhat is {x}?\n\nSTEPS\n[1] one {\n\n[2] two")
    assert "the last ends at 2" in message["content"].replace("\n", " ")
