"""Turns as no model should write them, drawn by a seeded generator."""

import random
from collections.abc import Callable

from longshort_reward.protocol import TAGS

NEAR_TAGS = (
    *("<", ">", "</", "<<think>", "<<answer>", "<think", "think>", "</think", "</answer", "< think >", "<Think>"),
    *("<rethink>", "</rethink", "<thi", "<answer/>", "<think id=1>", "&lt;think&gt;", "＜think＞", "<\u200bthink>"),
    *("<think>\x00", "<|im_end|>", "<|endoftext|>", "</s>", "[/INST]", "<tool_call>", "<![CDATA["),
)
TEXTS = (
    *("", " ", "\n", "\t\r\n", "\u2028", "\x00", "\x1b[31m", "\ufeff", "\u202e", "é\u0301", "\U0001d465", "𝟜", "٣"),
    *("12 < 15 and 3 > 2", r"\boxed{4}", r"\boxed{", "}", "{}", "%s %d {0}", "{{ 7 * 7 }}", "${output}", "`id`"),
    *("so", "wait", "the next step is hard", "1 + 3 = 4", "\\", '"', "'", "\\u0000", "\ud7ff", "\ufffd" * 3),
)


def malformed_turn(draw: random.Random) -> str:
    """A turn of a few pieces: tags, what looks like one, and texts; one in fifty is long."""
    pieces = [draw.choice(draw.choice((TAGS, NEAR_TAGS, TEXTS))) for _ in range(draw.randint(0, 12))]
    if draw.random() < 0.3:
        pieces.insert(0, draw.choice(("<think>", "<answer>")))
    if draw.random() < 0.3:
        pieces.append(draw.choice(("</think>", "</answer>", "</rethink>")))
    text = draw.choice(("", " ", "\n")).join(pieces)
    if text and draw.random() < 0.2:
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice("<>/\x00 ") + text[place + draw.randint(0, 3) :]
    if draw.random() < 0.02:
        text = text * draw.randint(50, 500)
    return text


GROWING: dict[str, Callable[[int], str]] = {
    "openings": lambda size: "<think>" * size,
    "closings": lambda size: "</think>" * size,
    "tags in turn": lambda size: "<think>a</think><answer>b</rethink>" * size,
    "tags of the partner": lambda size: "<think>" + "</answer>" * size,
    "angles": lambda size: "<" * 8 * size,
    "angles and a tag": lambda size: "<" * 8 * size + "<think>a</think>",
    "half tags": lambda size: "<think" * size,
    "half closings": lambda size: "</answe" * size,
    "spaces": lambda size: " " * 8 * size + "x" + " " * 8 * size,
    "spaces in the body": lambda size: "<think>" + " \n" * 4 * size + "a</think>",
    "boxes": lambda size: "<answer>" + r"\boxed{" * size + "</answer>",
}
"""Texts by how often something stands in them."""
