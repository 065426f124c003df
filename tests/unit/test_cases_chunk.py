"""Chains as models and users write them, cut by the rules for prose: line ends, spaces, Markdown, languages, blocks."""

import asyncio
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.no_collection import no_collection
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console

from verl_longshort.base.rejected import Rejected
from verl_longshort.base.stage import execute
from verl_longshort.config.compose import CONFIG_DIR
from verl_longshort.data.chunk import ChunkSettings, _cutter, _summary
from verl_longshort.data.records import Chain, Chunked
from verl_longshort.data.steps import split_steps
from verl_longshort.data.whole_blocks import whole_blocks
from verl_longshort.stages.chunk import ChunkStage

TEXT = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "chains" / "text.yaml"))
assert isinstance(TEXT, dict)
SETTINGS = ChunkSettings.parse(
    {**TEXT, "input": Path("a"), "output": Path("b"), "method": "rules", "seed": 0, "llm": None}  # type: ignore[dict-item]
)
CUT = _cutter(SETTINGS, None)
PARAGRAPHS = ("Okay, let x be 2.", "Next, x + 1 = 3.", "Wait, is it?", "Alternatively, y.", "Therefore 3.")
KINDS = ["plan", "step", "check", "alternative", "conclude"]


def cut(chain: str) -> Chunked:
    """The chain in thoughts, which give it back byte for byte."""
    record = asyncio.run(CUT(Chain(id="a", problem="p", ground_truth=1, chain=chain)))  # type: ignore[call-arg]
    assert record.separator.join(record.texts) == chain
    return record


def kinds(chain: str) -> list[str]:
    return [thought.kind for thought in cut(chain).thoughts]


LINE_ENDS = ("\n", "\r\n", "\r", "\u2028", "\u2029", "\x85", "\v", "\f")
SPACES = ("", " ", "\t", " \t ", "\u00a0", "\u3000", "\u200b", "\ufeff", "\u2003", "\u202f", "\u2060", "\u00ad")


@pytest.mark.parametrize("end", LINE_ENDS, ids=ascii)
def test_paragraphs_of_all_line_ends(end: str) -> None:
    assert kinds((end + end).join(PARAGRAPHS)) == KINDS
    assert kinds((end + end + end).join(PARAGRAPHS)) == KINDS
    assert kinds(end.join(PARAGRAPHS)) == KINDS
    assert len(cut(end.join([*PARAGRAPHS[:2], f"so{end}{end}x"])).thoughts) == 2


@pytest.mark.parametrize("space", SPACES, ids=ascii)
def test_blank_lines_with_spaces_of_all_kinds(space: str) -> None:
    for end in ("\n", "\r\n"):
        assert kinds(f"{end}{space}{end}{space}".join(PARAGRAPHS)) == KINDS


def test_line_ends_may_be_mixed() -> None:
    assert kinds("\r\n\r\n".join(PARAGRAPHS[:3]) + "\n\n" + "\r\r".join(PARAGRAPHS[3:])) == KINDS
    assert kinds("Okay.\n\r\nWait.\r\n\nThus.") == ["plan", "check", "conclude"]
    # One line end is no blank line, of two characters neither.
    assert len(split_steps("a\r\nb", SETTINGS.splitter).texts) == 1


def test_lines_are_steps_only_where_paragraphs_make_one_thought() -> None:
    assert kinds("Okay.\n\nLet n be 3.\nWait, no.\n\nThus 3.") == ["plan", "conclude"]
    assert kinds("Let n be 3.\n\nIt is\nWait, no.\nThus 3.") == ["start", "check", "conclude"]
    assert kinds("Let n be 3.\n\nIt is 4.\nYes.") == ["start"]
    assert cut("Let n be 3.\n\nIt is 4.\nYes.").separator == "\n\n"


BEFORE = (
    *("# ", "### ", "**", "__", "_", "***", "- ", "* ", "+ ", "> ", "> > ", "> - ", "1. ", "12) ", "(1) ", "[2] "),
    *(
        "1. **",
        "- [ ] ",
        "- [x] ",
        "   - ",
        "a) ",
        "iv. ",
        "\u2022 ",
        "\u2013 ",
        "\u2192 ",
        "\u2460 ",
        "1\ufe0f\u20e3 ",
    ),
    *("\u201c", '"', "'", "\u2018", "\u00ab", "(", "\u300c", "\u2026 ", "...", "<b>", "<p>", r"\textbf{", r"\item "),
    *(r"\section*{", "\U0001f914 ", "\ufeff", "\u200b", "\u3000\u3000", "1\u3001", "\uff08", "~~", "## 1. **"),
)


@pytest.mark.parametrize("before", BEFORE, ids=ascii)
def test_what_may_stand_before_a_marker(before: str) -> None:
    assert kinds(f"It is 2.\n\n{before}Wait, no.\n\n{before}Therefore 3.") == ["start", "check", "conclude"]


@pytest.mark.parametrize(
    "after", ["**", "_", "*", ":", ",", "!", ".", "\u2026", " \u2014 no", "</b>", "}", "", "\u200b"]
)
def test_what_may_stand_behind_a_marker(after: str) -> None:
    assert kinds(f"It is 2.\n\nWait{after}") == ["start", "check"]


def test_markers_behind_markdown() -> None:
    steps = ["Okay.", "### Step 1", "**Step 2:** x", "- Wait", "> Alternatively", "**Therefore**"]
    assert kinds("\n\n".join(steps)) == ["plan", "step", "step", "check", "alternative", "conclude"]


@pytest.mark.parametrize("text", ["waiting", "$Wait$", "|Wait|", r"\[wait\]", "3 wait", "x\nWait, no", "Someone: wait"])
def test_what_is_no_marker_at_the_beginning(text: str) -> None:
    assert kinds(f"It is 2.\n\n{text}\n\nThus 3.") == ["start", "conclude"]


@pytest.mark.parametrize("apostrophe", ["'", "\u2019", "\u2018", "\u02bc", "\uff07", "\u2032"])
def test_apostrophes_of_all_kinds(apostrophe: str) -> None:
    chain = f"\u201cHm.\u201d\n\n\u201cLet{apostrophe}s see\u201d\n\nNow let{apostrophe}s add.\n\nd{apostrophe}abord, x"
    assert kinds(chain) == ["start", "plan", "step", "plan"]


def test_spaces_and_hyphens_within_a_marker() -> None:
    for marker in (
        "Let\u00a0me check",
        "Let  me check",
        "let me\u3000check",
        "Let me double\u2011check",
        "Double check",
    ):
        assert kinds(f"It is 2.\n\n{marker}: 1") == ["start", "check"]


LANGUAGES: dict[str, list[str]] = {
    "Chinese": ["首先，设 x。", "接下来 y。", "等等，不对。", "或者 z。", "所以 3。"],
    "Chinese, traditional": ["讓我想想", "接著 y", "等一下", "也許 z", "因此 3"],
    "Japanese": ["まず、x を置く。", "次に y。", "待って、違う。", "あるいは z。", "したがって 3。"],
    "Korean": ["먼저 x", "다음으로 y", "잠깐만, 아니야", "또는 z", "따라서 3"],
    "Spanish": ["Primero, x.", "A continuaci\u00f3n, y.", "Espera, no.", "Tal vez z.", "Por lo tanto, 3."],
    "French": ["D\u2019abord, x.", "Ensuite, y.", "Attendez, non.", "Peut-\u00eatre z.", "Donc 3."],
    "German": ["Zun\u00e4chst x.", "Als n\u00e4chstes y.", "Moment mal, nein.", "Vielleicht z.", "Folglich 3."],
    "Russian": ["Сначала x.", "Затем y.", "Подождите, нет.", "Возможно, z.", "Следовательно, 3."],
    "Portuguese": ["Primeiro, x.", "Em seguida, y.", "Na verdade, n\u00e3o.", "Talvez z.", "Portanto, 3."],
    "Italian": ["Innanzitutto x.", "Poi y.", "Aspetta, no.", "Forse z.", "Quindi 3."],
}


@pytest.mark.parametrize("steps", LANGUAGES.values(), ids=LANGUAGES)
def test_markers_of_other_languages(steps: list[str]) -> None:
    for joint in ("\n\n", "\n", "\r\n\r\n\u3000\u3000"):
        assert kinds(joint.join(steps)) == KINDS


def test_accents_may_be_signs_of_their_own() -> None:
    assert kinds("x\n\nPeut-e\u0302tre z") == ["start", "alternative"]


@pytest.mark.parametrize("word", ["Also", "Or", "So", "Then", "Now", "Note", "Halt", "Comment", "Logo", "On"])
def test_everyday_words_of_english_open_nothing(word: str) -> None:
    assert kinds(f"It is 2.\n\n{word} we see 3.") == ["start"]


CODE = "x = 1\n\nfirst = 2\n\nstep = 3\n\nnext(it)"
FORMULA = "a = b\n\nnext = 3\n\nhence"
WHOLE: dict[str, str] = {
    "a fence": f"```python\n{CODE}\n```",
    "a fence of tildes": f"~~~\n{CODE}\n~~~",
    "a longer fence": f"````\n{CODE}\n```\n\nfinally\n````",
    "an indented fence": f"    ```\n{CODE}\n    ```",
    "a fence in a list": f"- ```py\n  {CODE}\n  ```",
    "a fence in a quotation": "> ```\n> x\n>\n> next\n\n> ```\n",
    "a fence of another kind in it": f"```\n~~~\n\n{CODE}\n```",
    "a display": f"$$\n\n{FORMULA}\n\n$$",
    "a display of brackets": f"\\[\n\n{FORMULA}\n\n\\]",
    "an environment": f"\\begin{{align*}}\n\n{FORMULA} \\\\[2pt]\n\n\\end{{align*}}",
    "one in another": f"\\begin{{a}}\n\n\\begin{{a}}\n\n{FORMULA}\n\n\\end{{a}}\n\nfinally\n\n\\end{{a}}",
    "a table of LaTeX": "\\begin{tabular}{cc}\n\nStep & 1 \\\\\n\nNext & 2\n\n\\end{tabular}",
    "a drawing": f"[asy]\n\n{CODE}\n\n[/asy]",
    "code of HTML": f"<pre><code class='x'>\n\n{CODE}\n\n</code></pre>",
    "a table of HTML": "<table>\n\n<tr>\n\nnext</tr>\n\n</table>",
}


@pytest.mark.parametrize("block", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\u2028"], ids=ascii)
def test_a_block_stays_whole(block: str, end: str) -> None:
    block = block.replace("\n", end)
    chain = (end + end).join(["Okay, code:", block, "Wait, done.", "Thus 3."])
    record = cut(chain)
    assert [thought.kind for thought in record.thoughts] == ["plan", "check", "conclude"]
    assert block.strip() in record.texts[0]


TABLES = (
    "| Step | x |\n|---|---|\n| Next | 1 |\n| Finally | 2 |",
    "Step | x\n--- | ---\nNext | 1\nFinally | 2",
    "  | Next | 1 |\n  | Finally | 2 |",
)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=ascii)
def test_a_table_stays_whole_where_lines_are_steps(table: str, end: str) -> None:
    chain = f"Okay, a table:\n{table}\nWait, done.\nThus 3.".replace("\n", end)
    assert kinds(chain) == ["plan", "check", "conclude"]


UNCLOSED = (
    "```\nx",
    "~~~",
    "$$ x",
    r"\[ x",
    r"\begin{align} x",
    r"\end{align}",
    "<table>",
    "````\nx\n```",
    r"\\[2pt] x",
)


@pytest.mark.parametrize("opening", UNCLOSED)
def test_what_is_not_closed_does_not_swallow_the_rest(opening: str) -> None:
    assert kinds(f"Okay.\n\n{opening}\n\nWait, no.\n\nThus 3.") == ["plan", "check", "conclude"]


def test_code_hides_what_stands_in_it() -> None:
    assert kinds("Okay.\n\n```\n$$\n```\n\nWait.\n\n```\n$$\n```\n\nThus.") == ["plan", "check", "conclude"]
    assert whole_blocks("a `$$` ```x``` b") == []


# ---- chains that are not cut ---------------------------------------------------------------------


def test_a_chain_of_one_line_is_one_thought() -> None:
    assert kinds(" ".join(PARAGRAPHS)) == ["plan"]
    assert kinds("word " * 20_000) == ["start"]


def stage(folder: Path, *chains: str) -> tuple[str, list[dict[str, Any]]]:
    lines = [{"id": f"r{k}", "problem": "p", "ground_truth": 1, "chain": chain} for k, chain in enumerate(chains)]
    (folder / "chains.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = io.StringIO()
    given = [f"longshort.input={folder / 'chains.jsonl'}", f"longshort.output={folder / 'thoughts.jsonl'}"]
    execute(ChunkStage(), Console(file=shown, width=100), overrides=given)
    rejects = [json.loads(line) for line in (folder / "thoughts.rejects.jsonl").read_text().splitlines()]
    return shown.getvalue(), rejects


def test_the_share_of_chains_in_one_thought_is_shown(tmp_path: Path) -> None:
    shown, _ = stage(tmp_path, "\n\n".join(PARAGRAPHS), "It is 3.", "3", "\n".join(PARAGRAPHS))
    assert re.search(r"chains of one thought +2 \(50\.0%\): r1, r2", shown)
    many = [cut("3") for _ in range(7)]
    aside = [Rejected(id="a", reason="b", detail="c")]
    assert _summary(many, aside, 0)["chains of one thought"] == "7 (100.0%): a, a, a, a, a, …"
    assert _summary([cut("\n\n".join(PARAGRAPHS))], [], 0)["chains of one thought"] == "0 (0.0%)"


def test_a_chain_without_text_or_with_half_a_character_is_rejected(tmp_path: Path) -> None:
    blank = (" \n\n \t ", "\u3000\u00a0", "\u200b\n\n\ufeff", "\r\n\r\n")
    _, rejects = stage(tmp_path, "Okay.", *blank, "Okay \ud83d.")
    assert [each["reason"] for each in rejects] == ["half a character"] + ["no text in the chain"] * 4


# ---- time ----------------------------------------------------------------------------------------

UNIT = 20_000
LONG: dict[str, str] = {
    "paragraphs": "Wait, x = 1.\n\n" * (UNIT // 14),
    "blank": " \n" * (UNIT // 2),
    "spaces in a line": "a\n" + " " * UNIT + "b",
    "no spaces": "a" * UNIT,
    "signs": "*_>#-" * (UNIT // 5),
    "numbers of lists": ("1.i.a)" * 30 + "\n\n") * (UNIT // 182),
    "commands": (r"\textbf{" * 20 + "\n\n") * (UNIT // 162),
    "fences": "```a\n\n" * (UNIT // 6),
    "fences of all lengths": "".join("`" * (3 + k % 90) + "\n\n" for k in range(UNIT // 50)),
    "displays": "$$\n\n" * (UNIT // 4),
    "brackets": "\\[\n\n" * (UNIT // 4),
    "environments": "".join(f"\\begin{{a{k}}}\n\n" for k in range(UNIT // 14)),
    "rows": "| a | b |\n\n" * (UNIT // 11),
    "rules": "|-|-\n" * (UNIT // 5),
    "tags": "<table " * (UNIT // 7),
    "quotations": "> " * (UNIT // 2),
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_time_is_linear_in_the_length(text: str) -> None:
    def seconds(text: str) -> float:
        begin = time.process_time()
        cut(f"Okay.\n\n{text}\n\nThus.")
        return time.process_time() - begin

    with no_collection():
        short = min(seconds(text) for _ in range(3))
        # 16 times as long if it were quadratic
        limit = 8 * short + 0.2
        assert any(seconds(text * 4) < limit for _ in range(5))


def test_a_chain_of_a_megabyte() -> None:
    paragraph = (
        "Wait, let me check that $x^2 + 1 = 5$.\n\n```\nstep\n\nnext\n```\n\n| a |\n|---|\n\n$$\ny\n$$\n\nSo it is.\n\n"
    )
    with no_collection():
        begin = time.process_time()
        record = cut(paragraph * (1_000_000 // len(paragraph)))
        assert len(record.thoughts) == 1_000_000 // len(paragraph)
        assert time.process_time() - begin < 10


PIECES = st.lists(
    st.sampled_from(
        [
            *("Wait", "```", "~~~", "\n", "\r\n", "\n\n", "\r", "\u2029", "$$", r"\[", r"\]", r"\begin{a}", r"\end{a}"),
            *("|", "| a | b |", "---|---", " ", "\u200b", "> ", "- ", "first", "\u6240\u4ee5", "x", "**", "<table>"),
        ]
    ),
    max_size=40,
).map("".join)


@given(st.one_of(PIECES, st.text(st.characters(exclude_categories=["Cs"]))))
def test_thoughts_give_every_chain_back(chain: str) -> None:
    cut(f"x{chain}")
    cut(f"{chain}x")
