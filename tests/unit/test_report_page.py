"""The shared look: nothing gets in that was not meant to, and nothing is fetched."""

import base64
import hashlib
import json
import math
import re
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from matplotlib.axes import Axes

from verl_longshort.base.files import write_text
from verl_longshort.report.page import (
    Section,
    clock,
    json_block,
    number,
    percent,
    render,
    signed,
)
from verl_longshort.report.svg import Ink, captioned, legend_below, plot


def page(**given: object) -> str:
    sections = [
        Section(id="one", title="One & only", body=Markup("<p>body</p>")),
        Section(id="two", title="Two", body=Markup("")),
    ]
    return render("base.html.jinja", {}, **{"title": "A <b>title</b>", "sections": sections, **given})


def test_what_is_no_markup_is_escaped() -> None:
    text = page()
    assert "<b>title" not in text
    assert "A &lt;b&gt;title&lt;/b&gt;" in text
    assert "One &amp; only" in text
    assert "<p>body</p>" in text


def test_only_the_given_scripts_may_run() -> None:
    script = 'console.log("1 < 2 && 3");'
    text = page(scripts=[script])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none'")
    assert f"<script>{script}</script>" in text
    assert "script-src 'none'" in page()


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_a_json_block_holds_any_text(value: object) -> None:
    block = str(json_block("data", value))
    found = re.fullmatch(r'<script type="application/json" id="data">([^<>]*)</script>', block, re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == value


def test_numbers_for_people() -> None:
    assert number(1234.56) == "1\u202f234.6"
    assert number(None) == number(math.nan) == percent(None) == signed(None) == signed(math.nan) == "–"
    assert percent(0.9181) == "91.8"
    assert (signed(-0.5), signed(0.25)) == ("\u22120.50", "+0.25")
    assert [clock(s) for s in (2.75, 55.4, 359.6, 7260)] == ["2.8 s", "55 s", "6 min 0 s", "2 h 1 min"]


def test_writing_replaces_the_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "page.html"
    write_text(file, "one")
    write_text(file, "two")
    assert file.read_text() == "two"
    assert list(file.parent.iterdir()) == [file]


def _draw(title: str, axes: Axes) -> None:
    axes.plot([1, 2, 3], [3, 1, 2], color=Ink.LONG.value, marker="o", label="a <line> of $^")
    axes.axhline(2, color=Ink.SHORT_SOFT.value)
    axes.set_title(title)
    legend_below(axes)


@pytest.fixture(scope="module")
def svg() -> str:
    return str(plot(partial(_draw, "x < y & z"), name="one", label='a "label"'))


def test_a_plot_has_the_colours_of_the_page(svg: str) -> None:
    assert "var(--long)" in svg
    assert "var(--short-soft)" in svg
    assert not re.search(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]\b", svg)
    assert "font-family" not in svg


def test_a_plot_is_text_and_fetches_nothing(svg: str) -> None:
    assert "x &lt; y &amp; z" in svg
    assert "a &lt;line&gt; of $^" in svg
    assert 'aria-label="a &#34;label&#34;"' in svg
    for forbidden in ("http", "<metadata", "<style", "<?xml", "<!DOCTYPE"):
        assert forbidden not in svg


def test_plots_share_no_names(svg: str) -> None:
    other = str(plot(partial(_draw, "other"), name="two", label="other"))
    names = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (svg, other)]
    assert names[0]
    assert not names[0] & names[1]
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    assert used <= names[0]


def test_a_plot_is_the_same_each_time(svg: str) -> None:
    assert str(plot(partial(_draw, "x < y & z"), name="one", label='a "label"')) == svg


def test_a_caption_is_escaped() -> None:
    assert "<figcaption>1 &lt; 2</figcaption>" in captioned(Markup("<svg></svg>"), "1 < 2")
