"""The files of the importance report: complete, self-contained, and safe whatever a chain says."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.weighed import HOSTILE, prose, weighed
from rich.console import Console

from verl_longshort.base.files import write_jsonl
from verl_longshort.cli import main
from verl_longshort.report.importance.chains import read_chains
from verl_longshort.report.importance.figures import FIGURES, light_colours
from verl_longshort.report.importance.page import examples, importance_report, payload

ADDRESSES = ("href", "src", "srcset", "action")
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Tags, the addresses in them, and the text of script elements by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.scripts: dict[str, str] = {}
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.addresses += [values[name] or "" for name in ADDRESSES if name in values]
        self.handlers += [name for name in values if name.startswith("on")]
        if tag == "script":
            self._script = values.get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    records = [prose(f"chain {index}", thoughts) for index, thoughts in enumerate([1, 3, 12, 130])]
    labels = [{"text": f"thought {index} .", "kind": f"<b>{HOSTILE}</b>"} for index in range(2)]
    records.append(weighed([5, 9], [0, 4, 5], problem="tiny", labels=labels, kinds=["$a_", HOSTILE]))
    write_jsonl(folder / "weighed.jsonl", records)
    importance_report(
        [folder / "weighed.jsonl"],
        out=folder / "out",
        rule="surprise",
        count=4,
        seed=0,
        console=Console(file=io.StringIO(), width=100),
    )
    return folder / "out"


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / "importance.html").read_text("utf-8"))


def test_every_figure_is_a_png(written: Path) -> None:
    assert {path.stem for path in written.glob("*.png")} == {figure.name for figure in FIGURES}
    assert all(path.read_bytes().startswith(PNG) for path in written.glob("*.png"))


def test_json_holds_the_numbers(written: Path) -> None:
    numbers = json.loads((written / "importance.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert (numbers["chains"], numbers["thoughts"], numbers["rule"]) == (5, 148, "surprise")
    assert numbers["survivors"][1] == {"position": 2, "chains": 4, "kept": numbers["survivors"][1]["kept"]}
    assert sum(numbers["bound"]["gap_counts"]) == numbers["decisions"] == 143


def test_page_fetches_nothing(page: Page, written: Path) -> None:
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    text = (written / "importance.html").read_text("utf-8")
    outside = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", re.sub(r"data:[^\"')]*", "", text))
    # names of XML vocabularies are no addresses
    assert {address for address in outside if "www.w3.org" not in address} == set()
    assert "@import" not in text
    assert "url(http" not in text


def test_hostile_text_stays_text(page: Page, written: Path) -> None:
    assert page.handlers == []
    assert "img" not in page.tags
    text = (written / "importance.html").read_text("utf-8")
    assert "<script>alert" not in text
    assert "<b>" not in text
    data = json.loads(page.scripts["reader-data"])
    assert any(HOSTILE in thought["text"] for chain in data["chains"] for thought in chain["thoughts"])


def test_scripts_are_those_of_the_policy_and_set_no_html(page: Page) -> None:
    assert set(page.scripts) == {"", "reader-data"}
    script = page.scripts[""]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|fetch\(", script)


def test_reader_shows_what_the_record_says(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "w.jsonl", [weighed([5, 9], [0, 4, 5])])
    data: dict[str, Any] = payload(read_chains([tmp_path / "w.jsonl"], rule="m"))
    (chain,) = data["chains"]
    first = chain["thoughts"][0]
    assert (chain["right"], chain["start"], chain["tokens"]) == (True, 0, 14)
    assert (first["keep"], first["p"], first["right"], first["samples"]) == (True, 0.8, 4, 5)
    assert (first["surprise"], first["label"], first["text"]) == (0.5, None, "thought 0 .")


def test_half_of_the_examples_end_wrong_as_far_as_there_are(tmp_path: Path) -> None:
    records = [weighed([5], [0, 5 if index % 5 else 0], name=str(index), problem=str(index)) for index in range(20)]
    write_jsonl(tmp_path / "w.jsonl", records)
    found = read_chains([tmp_path / "w.jsonl"], rule="m")
    drawn = examples(found, count=6, seed=1)
    assert [chain.correct for chain in drawn].count(False) == 3
    assert [chain.problem for chain in drawn] == sorted((chain.problem for chain in drawn), key=int)
    assert examples(found, count=6, seed=1) == drawn
    assert [chain.correct for chain in examples(found, count=15, seed=1)].count(False) == 4
    assert examples(found, count=99, seed=1) == found


def test_colours_of_png_are_those_of_the_page() -> None:
    assert all(re.fullmatch(r"#[0-9a-f]{6}", colour) for colour in light_colours().values())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.jsonl"], "files = missing.jsonl: no such file"),
        (["bad.jsonl"], "files = bad.jsonl, line 1: "),
        (["good.jsonl", "--rule", "best"], "rule = best: must be one of"),
        (["good.jsonl", "--rule", "surprise"], "rule = surprise: the record one has no surprises"),
        (["good.jsonl", "--examples", "0"], "--examples = 0: must be 1 or more"),
        (["good.jsonl", "--out", "good.jsonl"], "--out = good.jsonl: is a file"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    record = weighed([5, 9], [0, 4, 5])
    for thought in record["thoughts"]:
        del thought["surprises"]
    write_jsonl(Path("good.jsonl"), [record])
    write_jsonl(Path("bad.jsonl"), [{"problem": "p"}])
    before = {path.name for path in tmp_path.iterdir()}
    result = CliRunner().invoke(main, ["importance-report", "--out", "out", *arguments])
    assert result.exit_code == 2
    assert says in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == before
